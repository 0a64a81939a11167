"""Means over seeds: of one network, and of two that ran with the same seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from stages.core.running.errors import Refusal
from stages.core.statistics.intervals import ALIKE, bootstrapped, mean_interval
from stages.core.statistics.power import seeds_needed

ONCE = "n = 1, no interval"
NO_SPREAD = "no spread: every seed gives the same"
SAME_GAIN = "no spread: every seed differs by the same"
EQUAL = "no spread: equal in every seed"
DIGITS = 9  # behind which accuracies differ by rounding alone, and ranks would tell it apart


@dataclass(frozen=True)
class Summary:
    """Where nothing spreads there is no interval; `said` is why."""

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    said: str = ""


@dataclass(frozen=True)
class Paired:
    """`p` is of the paired t test, `p_equivalent` that the difference is as large as the margin, one way or the other.

    `seeds_for_difference` and `seeds_for_margin` are what a next experiment needs to see a difference as large as this
    one, or as large as the margin, POWER of the time; None where no number of seeds is enough. A pair without a seed in
    common has no difference.
    """

    n: int
    difference: float | None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_wilcoxon: float | None = None
    d: float | None = None
    p_equivalent: float | None = None
    seeds_for_difference: int | None = None
    seeds_for_margin: int | None = None
    said: str = ""


def summary(values: Sequence[float], confidence: float) -> Summary:
    """By Student's t and by a bootstrap; the latter is too narrow below some ten seeds, and skewed where they are."""
    _must_be_numbers(values)
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Summary(n, mean, said=ONCE)
    if np.ptp(values) < ALIKE:
        return Summary(n, mean, sd=0.0, said=NO_SPREAD)
    low, high = mean_interval(values, confidence) or (None, None)
    return Summary(n, mean, float(np.std(values, ddof=1)), low, high, *bootstrapped(values, np.mean, confidence))


def paired(values: Sequence[float], others: Sequence[float], confidence: float, margin: float | None) -> Paired:
    """Of `values` over `others`, by seed. Without a margin nothing is called equivalent."""
    if len(values) != len(others):
        raise Refusal(f"{len(values)} and {len(others)} values are no pairs: compare seeds that both have")
    _must_be_numbers([*values, *others])
    if margin is not None and not margin > 0:
        raise Refusal(f"a margin is more than 0, and {margin:g} is not")
    differences = np.round(np.subtract(values, others), DIGITS)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Paired(n, mean, said=ONCE)
    if np.ptp(differences) < ALIKE:
        return Paired(n, mean, sd=0.0, said=SAME_GAIN if mean else EQUAL)
    sd = float(differences.std(ddof=1))
    low, high = mean_interval(differences.tolist(), confidence) or (None, None)
    return Paired(
        n=n,
        difference=mean,
        sd=sd,
        low=low,
        high=high,
        p=float(stats.ttest_1samp(differences, 0).pvalue),  # pyright: ignore[reportAttributeAccessIssue]
        p_wilcoxon=float(stats.wilcoxon(differences).pvalue),  # pyright: ignore[reportAttributeAccessIssue]
        d=mean / sd,
        p_equivalent=_equivalent(differences, margin) if margin else None,
        seeds_for_difference=seeds_needed(mean / sd, confidence),
        seeds_for_margin=seeds_needed(margin / sd, confidence) if margin else None,
    )


def _equivalent(differences: np.ndarray, margin: float) -> float:
    """Two one-sided t tests (Schuirmann 1987)."""
    from statsmodels.stats.weightstats import ttost_paired  # takes seconds

    return float(ttost_paired(differences, np.zeros_like(differences), -margin, margin)[0])


def _must_be_numbers(values: Sequence[float]) -> None:
    if not len(values):
        raise Refusal("there is no value at all: no seed has finished")
    if not all(map(math.isfinite, values)):
        raise Refusal(f"not every value is a number: {', '.join(f'{value:g}' for value in values)}")
