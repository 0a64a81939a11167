"""Two networks on the same pictures: what the pictures can tell apart, and what they cannot."""

from dataclasses import dataclass

import pandas as pd
from scipy import stats

from stages.core import statistics


@dataclass(frozen=True)
class Comparison:
    """`lost`: pictures that only the other network gets right; `won`: those that only this one does."""

    network: str
    other: str
    pictures: int
    lost: int
    won: int
    p: float
    low: float
    high: float
    shown: bool

    @property
    def difference(self) -> float:
        return (self.won - self.lost) / self.pictures

    @property
    def verdict(self) -> str:
        if not self.shown:
            return "no difference is shown"
        return "the first is better" if self.won > self.lost else "the first is worse"


def compare(answers: pd.DataFrame, network: str, other: str, confidence: float) -> Comparison:
    """Exact McNemar test: were they equally good, each picture they differ on would be a fair coin."""
    labels = answers["label"].to_numpy()
    right, right_other = answers[network].to_numpy() == labels, answers[other].to_numpy() == labels
    lost, won = int((right_other & ~right).sum()), int((right & ~right_other).sum())
    p = float(stats.binomtest(won, lost + won).pvalue) if lost + won else 1.0
    low, high = statistics.difference_interval(lost, won, len(answers), confidence)
    return Comparison(network, other, len(answers), lost, won, p, low, high, shown=p < 1 - confidence)
