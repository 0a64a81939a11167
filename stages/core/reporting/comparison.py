"""Two networks on the same pictures: what the pictures can tell apart, and what they cannot."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from stages.core import statistics, words
from stages.core.reporting import sheets
from stages.core.reporting.sheets import Cell, Row, Table


@dataclass(frozen=True)
class Comparison:
    """`lost`: pictures that only the other network gets right; `won`: those that only this one does. `p` is corrected
    for all that were compared together, `uncorrected` and `p_equivalent` are not.
    """

    network: str
    other: str
    pictures: int
    lost: int
    won: int
    interval: statistics.Interval
    resampled: statistics.Interval
    uncorrected: float
    p: float
    p_equivalent: float
    margin: float
    confidence: float

    @property
    def difference(self) -> float:
        return (self.won - self.lost) / self.pictures

    @property
    def shown(self) -> bool:
        return self.p < 1 - self.confidence

    @property
    def equivalent(self) -> bool:
        return self.p_equivalent < 1 - self.confidence

    @property
    def verdict(self) -> str:
        within = f"equivalent within {words.points(self.margin).removeprefix('+')} points" if self.equivalent else ""
        if not self.shown:
            return within or "no difference is shown"
        better = f"the first is {'better' if self.won > self.lost else 'worse'}"
        return f"{better}, yet {within}" if within else better


def compare(
    answers: pd.DataFrame, pairs: Sequence[tuple[str, str]], confidence: float, margin: float
) -> dict[tuple[str, str], Comparison]:
    """All pairs are one family: exact McNemar tests, corrected together (Holm 1979)."""
    labels = answers["label"].to_numpy()
    right = {name: answers[name].to_numpy() == labels for name in {name for pair in pairs for name in pair}}
    counts = [(int((right[b] & ~right[a]).sum()), int((right[a] & ~right[b]).sum())) for a, b in pairs]
    ps = [statistics.mcnemar(lost, won) for lost, won in counts]
    return {
        pair: Comparison(
            *pair,
            len(labels),
            lost,
            won,
            statistics.difference_interval(lost, won, len(labels), confidence),
            statistics.paired_bootstrap(right[pair[0]], right[pair[1]], confidence),
            uncorrected,
            p,
            statistics.equivalent_shares(lost, won, len(labels), margin),
            margin,
            confidence,
        )
        for pair, (lost, won), uncorrected, p in zip(pairs, counts, ps, _holm(ps), strict=True)
    }


def _holm(ps: Sequence[float]) -> list[float]:
    return [p for p in statistics.holm(ps) if p is not None]


def table(found: Sequence[Comparison]) -> Table:
    rows = [Row(f"{one.network} and {one.other}", "", _cells(one)) for one in found]
    confidence, margin = found[0].confidence, words.points(found[0].margin).removeprefix("+")
    heads = (
        "Only the first is right",
        "Only the second",
        "Difference, points",
        "Bootstrap",
        "p",
        f"p of {len(found)} (Holm)",
        f"p of {margin} apart (TOST)",
        "Verdict",
    )
    note = (
        "Both networks answer the same pictures; the exact McNemar test asks whether the pictures that only one of "
        f"them gets right could be a fair coin. The family is the {len(found)} pairs of this table: Holm's p is "
        "corrected for all of them, and the verdict goes by it. Intervals (Agresti and Min; paired bootstrap over "
        f"pictures) hold at {words.level(confidence)} for each pair alone. Networks are called equivalent where two "
        f"one-sided tests (TOST by Tango's score, each pair alone) leave less than {margin} points between them. What "
        "holds of these networks need not hold of those of another seed."
    )
    return Table("What the pictures can tell apart", "Compared", heads, rows, note)


def _cells(one: Comparison) -> list[Cell]:
    ps = (sheets.number(p, probability(p)) for p in (one.uncorrected, one.p, one.p_equivalent))
    low, high = one.resampled
    resampled = Cell(words.points_interval(low, high), value=one.difference, low=low, high=high)
    difference = sheets.points(one.difference, *one.interval)
    return [sheets.count(one.won), sheets.count(one.lost), difference, resampled, *ps, Cell(one.verdict)]


def chance(p: float) -> str:
    return f"p {probability(p)}" if p < 0.001 else f"p = {probability(p)}"


def probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
