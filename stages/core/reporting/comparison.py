"""Two networks on the same pictures: what the pictures can tell apart, and what they cannot."""

import math
from dataclasses import dataclass

import pandas as pd
from scipy import stats


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
    low, high = difference_interval(lost, won, len(answers), confidence)
    return Comparison(network, other, len(answers), lost, won, p, low, high, shown=p < 1 - confidence)


def difference_interval(lost: int, won: int, pictures: int, confidence: float) -> tuple[float, float]:
    """For the difference of two paired shares (Agresti and Min 2005): Wald with half a picture more in each cell."""
    lost_more, won_more, count = lost + 0.5, won + 0.5, pictures + 2
    centre = (won_more - lost_more) / count
    spread = math.sqrt(lost_more + won_more - (won_more - lost_more) ** 2 / count) / count
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * spread
    return centre - reach, centre + reach
