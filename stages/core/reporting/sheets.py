"""Tables and verdicts, already in words, whatever they are about."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from statistics import mean
from typing import Any

from stages.core import words
from stages.core.reporting.findings import Against


@dataclass(frozen=True)
class Cell:
    """`quiet` says why there is no number."""

    text: str = ""
    details: tuple[str, ...] = ()
    warning: str = ""
    quiet: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    hint: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """`corner` stands above the labels of the rows."""

    title: str
    corner: str
    heads: tuple[str, ...]
    rows: list[Row]


@dataclass(frozen=True)
class Verdict:
    word: str
    reason: str


def row(label: str, *texts: str, hint: str = "") -> Row:
    return Row(label, hint, [Cell(text) for text in texts])


def without_empty_columns(table: Table) -> Table:
    """What no row has is not asked of any."""
    columns = list(zip(table.heads, *(row.cells for row in table.rows), strict=True))
    heads, *lines = zip(*(column for column in columns if any(cell != Cell() for cell in column[1:])), strict=True)
    rows = [replace(one, cells=list(cells)) for one, cells in zip(table.rows, lines, strict=True)]
    return replace(table, heads=heads, rows=rows)


def zeros(share: float | None) -> str:
    return words.percent(share) if share else ""


@dataclass(frozen=True)
class Controlled:
    """Val accuracies of a network and its controls by seed, and how the page calls them."""

    own: str
    seeds: Mapping[str, Mapping[Any, float]]
    against: Mapping[Any, Against]
    confidence: float
    names: Mapping[str, str]
    nouns: Mapping[str, str]
    claims: Mapping[tuple[str, str], str]

    def verdicts(self) -> list[Verdict]:
        return [self._verdict(name, against) for name, against in self.against.items()]

    def _verdict(self, name: str, against: Against) -> Verdict:
        """One seed claims nothing."""
        own, other = (words.percent(self._mean(who)) for who in (self.own, name))
        gain = f"{self.own} {own}, {self.names[name]} {other}: {words.points(against.gain)} points"
        word = f"{against.verdict.capitalize()}, against {self.nouns[name]}"
        if against.low is None or against.high is None:
            return Verdict(
                word, f"One seed: {gain}. How much of that another seed would change cannot be told from one."
            )
        spread = words.points_interval(against.low, against.high)
        sure = f"in the mean, paired t interval at {words.level(self.confidence)} {spread}"
        claim = self.claims[name, against.verdict]
        return Verdict(word, f"{words.plural(len(self.seeds), 'seed')}: {gain} {sure}. {claim}")

    def table(self) -> list[Table]:
        """With the difference from each control; one seed alone needs no table."""
        if len(self.seeds) < 2:
            return []
        learners = (self.own, *self.against)
        told = {f"Seed {seed}": [found[name] for name in learners] for seed, found in self.seeds.items()}
        told["Mean"] = [self._mean(name) for name in learners]
        rows = [row(label, *_differences(*found)) for label, found in told.items()]
        heads = chain.from_iterable((self.names[name], "Difference, points") for name in self.against)
        return [Table("Each seed", "", (self.own, *heads), rows)]

    def _mean(self, name: str) -> float:
        return mean(found[name] for found in self.seeds.values())


def _differences(own: float, *others: float) -> list[str]:
    beside = ((words.percent(other), words.points(own - other)) for other in others)
    return [words.percent(own), *chain.from_iterable(beside)]
