"""What two runs answered to the same test pictures, network by network: is one better, are they equivalent?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stages.core import statistics, words
from stages.core.answers import Answers
from stages.core.statistics import Interval


@dataclass(frozen=True)
class Difference:
    """Of the second run's network against the first's; `p_holm` is for all the networks that are compared."""

    network: str
    pictures: int
    first: float
    first_interval: Interval
    second: float
    second_interval: Interval
    lost: int
    won: int
    difference: float
    interval: Interval
    bootstrap: Interval
    p: float
    p_holm: float
    p_equivalent: float
    identical: bool
    verdict: str


def differ(
    first: Answers, second: Answers, names: Sequence[str], margin: float, confidence: float
) -> Iterator[Difference]:
    """All the networks are one family: the more there are, the likelier one differs by chance (Holm 1979)."""
    rights = {name: [_right(answered, name) for answered in (first, second)] for name in names}
    lost = {name: int((before & ~after).sum()) for name, (before, after) in rights.items()}
    won = {name: int((after & ~before).sum()) for name, (before, after) in rights.items()}
    chances = {name: statistics.mcnemar(lost[name], won[name]) for name in names}
    together = [p for p in statistics.holm(list(chances.values())) if p is not None]
    for (name, (before, after)), p_holm in zip(rights.items(), together, strict=True):
        count, gain = len(before), (won[name] - lost[name]) / len(before)
        equivalent = statistics.equivalent_shares(lost[name], won[name], count, margin)
        yield Difference(
            network=name,
            pictures=count,
            first=float(before.mean()),
            first_interval=statistics.wilson(int(before.sum()), count, confidence),
            second=float(after.mean()),
            second_interval=statistics.wilson(int(after.sum()), count, confidence),
            lost=lost[name],
            won=won[name],
            difference=gain,
            interval=statistics.difference_interval(lost[name], won[name], count, confidence),
            bootstrap=statistics.paired_bootstrap(after, before, confidence),
            p=chances[name],
            p_holm=p_holm,
            p_equivalent=equivalent,
            identical=np.array_equal(first.probabilities[name], second.probabilities[name]),
            verdict=statistics.verdict(gain, p_holm, equivalent, confidence, within(margin)),
        )


def _right(answered: Answers, name: str) -> np.ndarray:
    return answered.probabilities[name].argmax(axis=1) == answered.labels


def within(margin: float) -> str:
    return f"{margin * 100:.2f} points"


def told(one: Difference, family: int, margin: float) -> str:
    before, after = (
        f"{words.percent(share)} {words.interval(*interval)}"
        for share, interval in ((one.first, one.first_interval), (one.second, one.second_interval))
    )
    agresti, bootstrap = (words.points_interval(*interval) for interval in (one.interval, one.bootstrap))
    among = f", {words.tiny(one.p_holm)} among {words.plural(family, 'network')} (Holm)" if family > 1 else ""
    return "\n".join(
        (
            f"{one.network}: {'identical answers' if one.identical else one.verdict}",
            f"  accuracy {before} -> {after}; {one.lost:,} lost, {one.won:,} won",
            f"  difference {words.points(one.difference)} points {agresti} (Agresti and Min), {bootstrap} (bootstrap)",
            f"  p of no difference {words.tiny(one.p)} (exact McNemar){among}",
            f"  p of {within(margin)} or more {words.tiny(one.p_equivalent)} (two one-sided tests)",
        )
    )
