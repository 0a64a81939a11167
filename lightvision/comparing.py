"""What several runs of several things amount to: each with its spread, and pairs that ran with the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from stages.core import statistics
from stages.core.reporting.sweeps import Comparison, Pair, Series

UNPAIRED = "no seed in common"
Values = Mapping[str, float]  # by seed


@dataclass(frozen=True)
class Question:
    """Whether more is better is known of shares, which are accuracies; of all else it is only said which is more."""

    metric: str
    share: bool
    margin: float | None
    confidence: float

    @property
    def sides(self) -> tuple[str, str]:
        return ("better", "worse") if self.share else ("more", "less")


def compare(question: Question, series: Mapping[str, Values], pairs: Sequence[tuple[str, str]]) -> Comparison:
    """Pairs are one family: p values of both questions are adjusted for how many there are."""
    found = [(first, second, *_paired(series[first], series[second], question)) for first, second in pairs]
    different = statistics.holm([one.p for _, _, one, _ in found])
    equivalent = statistics.holm([one.p_equivalent for _, _, one, _ in found])
    adjusted = zip(found, different, equivalent, strict=True)
    return Comparison(
        metric=question.metric,
        share=question.share,
        margin=question.margin,
        series=[_series(name, values, question.confidence) for name, values in series.items()],
        pairs=[
            _pair(first, second, one, missing, holm, same, question)
            for (first, second, one, missing), holm, same in adjusted
        ],
    )


def _series(name: str, values: Values, confidence: float) -> Series:
    return Series(name=name, values=dict(values), **asdict(statistics.summary(list(values.values()), confidence)))


def _paired(first: Values, second: Values, question: Question) -> tuple[statistics.Paired, list[str]]:
    """On the seeds that both have; the others are named."""
    shared = [key for key in first if key in second]
    missing = sorted(set(first) ^ set(second))
    if not shared:
        return statistics.Paired(n=0, difference=None, said=UNPAIRED), missing
    values, others = ([one[key] for key in shared] for one in (first, second))
    return statistics.paired(values, others, question.confidence, question.margin), missing


def _pair(
    first: str,
    second: str,
    one: statistics.Paired,
    missing: list[str],
    holm: float | None,
    same: float | None,
    question: Question,
) -> Pair:
    return Pair(
        first=first,
        second=second,
        missing=missing,
        p_holm=holm,
        p_equivalent_holm=same,
        verdict=one.said or _verdict(one, holm, same, question),
        **asdict(one),
    )


def _verdict(one: statistics.Paired, holm: float | None, same: float | None, question: Question) -> str:
    if holm is None or one.difference is None:
        return statistics.NOT_SHOWN
    within = f"{(question.margin or 0) * 100:.2f} points"
    return statistics.verdict(one.difference, holm, same, question.confidence, within, question.sides)
