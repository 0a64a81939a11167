"""Where a mean or a median lies."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

Interval = tuple[float, float]
ALIKE = 1e-9  # gains that differ by rounding alone


def median_interval(values: np.ndarray, confidence: float) -> Interval:
    """Bootstrap interval of a median."""
    return bootstrapped(values, np.median, confidence)


def bootstrapped(values: Sequence[float] | np.ndarray, found: Callable[..., object], confidence: float) -> Interval:
    """Percentiles of what resampled values give (Efron 1979); seeded, so that equal values give equal intervals."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    drawn = stats.bootstrap((values,), found, confidence_level=confidence, method="percentile", rng=0)
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def mean_interval(differences: Sequence[float], confidence: float) -> Interval | None:
    """Student's t, for the mean of paired differences; one pair says nothing of how they vary."""
    if len(differences) < 2:
        return None
    if np.ptp(differences) < ALIKE:
        return differences[0], differences[0]
    found = stats.ttest_1samp(differences, 0).confidence_interval(confidence)
    return float(found.low), float(found.high)
