"""Sweeps over seeds and ablations: what `lightvision sweep` and `ablation` wrote, as a person reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stages.core import words
from stages.core.reporting import findings
from stages.core.reporting.findings import Found

SMALLEST = 1e-3  # p below it are not told more exactly
NOTHING = "–"
DECIDED = ("n", "difference", "interval", "verdict")
TESTED = ("t p", "Holm", "Wilcoxon p", "d", "equivalent p", "seeds")


class Run(Found):
    """One experiment; `params` are those in which the runs differ, `test` says which pictures judged it."""

    row: str
    seed: int
    fold: int | None
    experiment: str
    rev: str
    machine: str | None
    test: str | None
    params: dict[str, Any]
    metrics: dict[str, float | int]


class Failure(Found):
    row: str
    seed: int
    fold: int | None
    reason: str


class Series(Found):
    """What one network, or one row, gave over the seeds."""

    name: str
    values: dict[str, float]
    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    said: str


class Pair(Found):
    """`missing` are seeds that only one of the two has; `said` is why there is no test."""

    first: str
    second: str
    missing: list[str]
    n: int
    difference: float | None
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    p_wilcoxon: float | None
    d: float | None
    p_equivalent: float | None
    p_equivalent_holm: float | None
    seeds_for_difference: int | None
    seeds_for_margin: int | None
    said: str
    verdict: str


class Comparison(Found):
    """One metric, of every series; a margin is only of shares."""

    metric: str
    share: bool
    margin: float | None
    series: list[Series] = Field(min_length=1)
    pairs: list[Pair]


class Sweep(Found):
    version: Literal[1] = Field(alias="schema")
    kind: Literal["seeds", "ablation"]
    title: str
    about: str
    varied: str
    confidence: float
    power: float
    runs: list[Run] = Field(min_length=1)
    failed: list[Failure]
    comparisons: list[Comparison] = Field(min_length=1)
    commit: str
    machine: dict[str, Any]
    date: str


def read(folder: Path) -> dict[str, Sweep]:
    """Each sweep of a folder, by its name."""
    return {path.stem: findings.read(path, Sweep) for path in sorted(folder.glob("*.json"))}


def value(number: float, one: Comparison) -> str:
    return words.percent(number) if one.share else f"{number:,.5g}"


def deviation(number: float | None, one: Comparison) -> str:
    if number is None:
        return NOTHING
    return f"{number * 100:.2f}" if one.share else f"{number:.2g}"


def interval(low: float | None, high: float | None, one: Comparison) -> str:
    if low is None or high is None:
        return NOTHING
    return words.interval(low, high) if one.share else f"[{low:,.5g}, {high:,.5g}]"


def difference(number: float | None, one: Comparison) -> str:
    if number is None:
        return NOTHING
    return f"{number * 100:+.2f}" if one.share else f"{number:+,.4g}"


def difference_interval(pair: Pair, one: Comparison) -> str:
    if pair.low is None or pair.high is None:
        return NOTHING
    return f"[{difference(pair.low, one)}, {difference(pair.high, one)}]"


def chance(p: float | None) -> str:
    if p is None:
        return NOTHING
    return f"<{words.SPACE}{SMALLEST:g}" if p < SMALLEST else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def effect(d: float | None) -> str:
    return NOTHING if d is None else f"{d:+.2f}"


def more(pair: Pair, one: Comparison) -> str:
    """Seeds that a next experiment needs; without a test nothing is known of it."""
    if pair.sd is None or pair.p is None:
        return NOTHING
    counts = [pair.seeds_for_difference] + ([pair.seeds_for_margin] if one.margin else [])
    return " / ".join("no number" if count is None else words.whole(count) for count in counts)


def units(one: Comparison) -> str:
    return f"{one.metric}, %" if one.share else one.metric


def margin(one: Comparison) -> str:
    return f"{one.margin * 100:.2f} points" if one.margin else ""


def family(one: Comparison) -> int:
    """Tests that Holm's correction counts."""
    return sum(1 for pair in one.pairs if pair.p is not None)


def least(one: Comparison) -> str:
    """Wilcoxon's p cannot fall below what all signs alike give, 2 of all ways to draw signs."""
    counts = [pair.n for pair in one.pairs if pair.p is not None]
    return chance(2 / 2 ** min(counts)) if counts else NOTHING


def differing(sweep: Sweep) -> Mapping[str, Any]:
    """The parameters in which runs differ, with all their values."""
    names = dict.fromkeys(name for run in sweep.runs for name in run.params)
    return {name: list({str(run.params.get(name)): None for run in sweep.runs}) for name in names}


def named(pair: Pair) -> str:
    return f"{pair.first} − {pair.second}"


def summary(series: Series, one: Comparison) -> list[str]:
    return [
        str(series.n),
        value(series.mean, one),
        deviation(series.sd, one),
        interval(series.low, series.high, one),
        interval(series.bootstrap_low, series.bootstrap_high, one),
        series.said,
    ]


def decided(pair: Pair, one: Comparison) -> list[str]:
    """As DECIDED has its columns."""
    lacking = f"only one has {', '.join(pair.missing)}" if pair.missing else ""
    verdict = "; ".join(filter(None, (pair.verdict, lacking)))
    return [str(pair.n), difference(pair.difference, one), difference_interval(pair, one), verdict]


def tested(pair: Pair, one: Comparison) -> list[str]:
    """As TESTED has its columns."""
    return [
        chance(pair.p),
        chance(pair.p_holm),
        chance(pair.p_wilcoxon),
        effect(pair.d),
        chance(pair.p_equivalent_holm),
        more(pair, one),
    ]


def caption(one: Comparison, sweep: Sweep) -> str:
    """What a reader must know of the columns."""
    wanted = f" / one of {margin(one)}" if one.margin else ""
    tests = words.plural(family(one), "test")
    unit = ", in points" if one.share else ""
    return (
        f"Differences by seed{unit}, with {words.level(sweep.confidence)} intervals of t. "
        f"Holm: p of the paired t test, for {tests} at once; verdicts follow it. Wilcoxon's p is {least(one)} at "
        "least with so few seeds. d: Cohen's, of the differences. Equivalent p: of two one-sided t tests, Holm's too. "
        "Seeds: what a next sweep needs to see a difference as large as this one"
        f"{wanted}, {words.level(sweep.power)} of the time."
    )
