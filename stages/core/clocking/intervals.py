"""How sure a number of rounds is, of which one resembles the next."""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from stages.core.statistics import Interval

RESAMPLED = 1000
FEWEST_BLOCKS = 4


def interval(rounds: np.ndarray, statistic: Callable[[np.ndarray], float], confidence: float) -> Interval:
    """Of a statistic of all rounds, rows of calls or one number each: calls of one round are not independent.

    A slow minute slows several rounds in a row, so whole blocks of rounds are drawn, in a circle (Politis and Romano
    1992), with percentiles as wide as Student's t is over the normal for so few blocks (Hesterberg 2015).
    """
    if np.ptp(rounds) == 0:
        return float(rounds.flat[0]), float(rounds.flat[0])
    length = block(rounds if rounds.ndim == 1 else np.median(rounds, axis=1))
    found = [statistic(rounds[drawn]) for drawn in _draws(len(rounds), length)]
    blocks = len(rounds) / length
    tail = stats.norm.cdf(math.sqrt(blocks / (blocks - 1)) * stats.t.ppf((1 - confidence) / 2, blocks - 1))
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def block(rounds: np.ndarray) -> int:
    """How many rounds belong together (Carlstein 1986, for a chain in which each hangs on the one before)."""
    if np.ptp(rounds[1:]) == 0 or np.ptp(rounds[:-1]) == 0:
        return 1
    alike = min(max(float(np.asarray(stats.spearmanr(rounds[:-1], rounds[1:]))[0]), 0), 0.95)
    best = (2 * alike / (1 - alike**2)) ** (2 / 3) * len(rounds) ** (1 / 3)
    return max(1, min(math.ceil(best), len(rounds) // FEWEST_BLOCKS))


def _draws(rounds: int, length: int) -> np.ndarray:
    starts = np.random.default_rng(0).integers(rounds, size=(RESAMPLED, math.ceil(rounds / length), 1))
    return ((starts + np.arange(length)) % rounds).reshape(RESAMPLED, -1)[:, :rounds]
