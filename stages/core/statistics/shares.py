"""Shares of pictures: of one network, and of two on the same pictures."""

import math

import numpy as np
from scipy import stats

from stages.core.statistics.intervals import Interval


def wilson(right: int, count: int, confidence: float) -> Interval:
    """For a share of `count` pictures (Wilson 1927)."""
    found = stats.binomtest(right, count).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def difference_interval(lost: int, won: int, pictures: int, confidence: float) -> Interval:
    """For the difference of two paired shares (Agresti and Min 2005): Wald with half a picture more in each cell."""
    lost_more, won_more, count = lost + 0.5, won + 0.5, pictures + 2
    centre = (won_more - lost_more) / count
    spread = math.sqrt(lost_more + won_more - (won_more - lost_more) ** 2 / count) / count
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * spread
    return centre - reach, centre + reach


def calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Expected gap between confidence and accuracy over equally wide bins (Guo et al. 2017)."""
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = [
        abs(confidences[place == number].mean() - right[place == number].mean()) * (place == number).mean()
        for number in np.unique(place)
    ]
    return float(sum(gaps))
