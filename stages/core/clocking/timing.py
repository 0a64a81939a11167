"""What rounds of calls say of a file, alone and beside another; rounds are the unit, not calls."""

from typing import Any

import numpy as np
from scipy import stats

from stages.core.clocking import intervals

NOISY = 0.1  # of the median, from which on an interval says that the machine was busy


def timing(milliseconds: np.ndarray, batch: int, confidence: float) -> dict[str, Any]:
    """Of round x call."""
    medians = np.median(milliseconds, axis=1)
    median = float(np.median(medians))
    low, high = intervals.interval(medians, np.median, confidence)
    p95_low, p95_high = intervals.interval(milliseconds, _p95, confidence)
    return {
        "median": median,
        "low": low,
        "high": high,
        "p95": _p95(milliseconds),
        "p95_low": p95_low,
        "p95_high": p95_high,
        "calls": int(milliseconds.size),
        "rounds": len(milliseconds),
        "noisy": bool((high - low) / median > NOISY),
        "drift": drift(medians, confidence),
        "pictures_per_second": batch / median * 1e3,
    }


def drift(medians: np.ndarray, confidence: float) -> dict[str, float | bool]:
    """Kendall's test of a trend from first round to last; Theil and Sen's slope, as a share of the median."""
    if np.ptp(medians) == 0:
        return {"share": 0.0, "p": 1.0, "found": False}
    order = np.arange(len(medians))
    p = float(np.asarray(stats.kendalltau(order, medians))[1])
    slope = float(np.asarray(stats.theilslopes(medians, order))[0])
    return {
        "share": slope * (len(medians) - 1) / float(np.median(medians)),
        "p": float(p),
        "found": bool(p < 1 - confidence),
    }


def times_faster(milliseconds: np.ndarray, baseline: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Round by round, by medians: whatever slowed a round slowed both. With its interval."""
    ratios = np.median(baseline, axis=1) / np.median(milliseconds, axis=1)
    return float(np.median(ratios)), *intervals.interval(ratios, np.median, confidence)


def _p95(milliseconds: np.ndarray) -> float:
    return float(np.percentile(milliseconds, 95))
