"""Shares of pictures: of one network, and of two on the same pictures."""

import math

import numpy as np
from scipy import stats

from stages.core.running.errors import Refusal
from stages.core.statistics.intervals import Interval

RESAMPLES = 10_000


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
    return max(-1.0, centre - reach), min(1.0, centre + reach)


def mcnemar(lost: int, won: int) -> float:
    """Exact p (McNemar 1947): were both equally good, each picture they differ on would be a fair coin."""
    return float(stats.binomtest(won, lost + won).pvalue) if lost + won else 1.0


def paired_bootstrap(right: np.ndarray, right_other: np.ndarray, confidence: float) -> Interval:
    """For the difference of two shares, over resampled pictures, both networks on the same ones.

    Drawing pictures is drawing how many of them are won, lost or neither. It has no width where the two never differ:
    pictures that were not seen can then still differ, and `difference_interval` says how many.
    """
    if len(right) != len(right_other) or not len(right):
        raise Refusal(f"{len(right)} and {len(right_other)} answers are no pairs")
    won, lost = np.count_nonzero(right & ~right_other), np.count_nonzero(right_other & ~right)
    chances = np.array([won, lost, len(right) - won - lost]) / len(right)
    drawn = np.random.default_rng(0).multinomial(len(right), chances, RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / len(right), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def equivalent_shares(lost: int, won: int, pictures: int, margin: float) -> float:
    """p of two one-sided tests: that the shares differ by the margin or more, one way or the other.

    By scores, which hold where networks hardly differ and a Wald interval is far too narrow (Tango 1998).
    """
    if not 0 < margin < 1:
        raise Refusal(f"a margin lies between 0 and 1, and {margin:g} does not")
    return max(_no_worse(lost, won, pictures, margin), _no_worse(won, lost, pictures, margin))


def _no_worse(lost: int, won: int, pictures: int, margin: float) -> float:
    """p of the difference being -margin, against it being more."""
    square, linear = 2 * pictures, -won - lost - (2 * pictures - won + lost) * margin
    rest = lost * margin * (margin + 1)
    likeliest = (math.sqrt(linear**2 - 4 * square * rest) - linear) / (2 * square)  # share lost, were it just so
    spread = math.sqrt(pictures * (2 * likeliest - margin * (margin + 1)))
    return float(stats.norm.sf((won - lost + pictures * margin) / spread))
