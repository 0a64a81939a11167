"""How sure a number is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Interval = tuple[float, float]
ALIKE = 1e-9  # gains that differ by rounding alone


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


def median_interval(values: np.ndarray, confidence: float) -> Interval:
    """Bootstrap interval of a median; the resampling is seeded, so that equal values give equal intervals."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap((values,), np.median, confidence_level=confidence, method="percentile", rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def mean_interval(differences: Sequence[float], confidence: float) -> Interval | None:
    """Student's t, for the mean of paired differences; one pair says nothing of how they vary."""
    if len(differences) < 2:
        return None
    if np.ptp(differences) < ALIKE:
        return differences[0], differences[0]
    found = stats.ttest_1samp(differences, 0).confidence_interval(confidence)
    return float(found.low), float(found.high)


def word(interval: Interval | None) -> str:
    """What the interval of a gain shows; one seed shows nothing, nor do seeds that all gain as many pictures.

    Accuracy counts pictures: two seeds that both gain one would make an interval of no width.
    """
    if interval is None or interval[0] <= 0 <= interval[1] or interval[1] - interval[0] < ALIKE:
        return "not shown"
    return "helps" if interval[0] > 0 else "hurts"


def against(
    name: str, controls: Sequence[str], accuracies: Sequence[Mapping[str, float | None]], confidence: float
) -> dict[str, Any]:
    """What a network gained over each of its controls, by seed."""
    found: dict[str, Any] = {}
    for control in controls:
        pairs = [(one[name], one.get(control)) for one in accuracies]
        gains = [own - other for own, other in pairs if own is not None and other is not None]
        if gains:
            interval = mean_interval(gains, confidence)
            low, high = interval or (None, None)
            found[control] = {"gain": sum(gains) / len(gains), "low": low, "high": high, "verdict": word(interval)}
    return found


def calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Expected gap between confidence and accuracy over equally wide bins (Guo et al. 2017)."""
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = [
        abs(confidences[place == number].mean() - right[place == number].mean()) * (place == number).mean()
        for number in np.unique(place)
    ]
    return float(sum(gaps))
