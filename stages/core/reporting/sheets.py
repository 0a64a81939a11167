"""Tables and verdicts, already in words, whatever they are about."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from statistics import mean
from typing import Any

from stages.core import words
from stages.core.reporting.findings import Against, Lesson

MEAN = "Mean"


@dataclass(frozen=True)
class Cell:
    """`value` is the number itself, by which a column is ordered, with the ends of its interval; `quiet` says why there
    is none.
    """

    text: str = ""
    details: tuple[str, ...] = ()
    warning: str = ""
    quiet: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One that is a `total` of the others stays beneath them, however they are ordered."""

    label: str
    hint: str
    cells: list[Cell]
    total: bool = False


@dataclass(frozen=True)
class Table:
    """`corner` stands above the labels of the rows, `note` tells how to read them."""

    title: str
    corner: str
    heads: tuple[str, ...]
    rows: list[Row]
    note: str = ""

    @property
    def wordy(self) -> tuple[bool, ...]:
        """Which columns hold no number."""
        columns = zip(*(row.cells for row in self.rows), strict=True)
        return tuple(all(cell.value is None for cell in column) for column in columns)


def share(value: float, low: float | None = None, high: float | None = None, *details: str) -> Cell:
    between = (words.interval(low, high),) if low is not None and high is not None else ()
    return Cell(words.percent(value), (*between, *details), value=value, low=low, high=high)


def points(value: float, low: float | None = None, high: float | None = None) -> Cell:
    """A difference of two shares."""
    between = (words.points_interval(low, high),) if low is not None and high is not None else ()
    return Cell(words.points(value), between, value=value, low=low, high=high)


def count(value: int, *details: str) -> Cell:
    return Cell(words.whole(value), details, value=value)


def number(value: float, text: str, *details: str) -> Cell:
    """Said as `text`."""
    return Cell(text, details, value=value)


def loss(value: float) -> Cell:
    return number(value, f"{value:.3f}")


def epoch(lesson: Lesson) -> Cell:
    """The one that was kept."""
    if not lesson.epochs:
        return absent("not trained")
    return number(lesson.best_epoch, f"{lesson.best_epoch} of {lesson.epochs}")


def absent(why: str) -> Cell:
    return Cell(quiet=why)


@dataclass(frozen=True)
class Verdict:
    word: str
    reason: str


def row(label: str, *cells: str | Cell, hint: str = "", total: bool = False) -> Row:
    return Row(label, hint, [Cell(cell) if isinstance(cell, str) else cell for cell in cells], total)


def without_empty_columns(table: Table) -> Table:
    """What no row has is not asked of any."""
    columns = list(zip(table.heads, *(row.cells for row in table.rows), strict=True))
    heads, *lines = zip(*(column for column in columns if any(cell != Cell() for cell in column[1:])), strict=True)
    rows = [replace(one, cells=list(cells)) for one, cells in zip(table.rows, lines, strict=True)]
    return replace(table, heads=heads, rows=rows)


def zeros(found: float | None) -> Cell:
    return share(found) if found else Cell()


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
        told[MEAN] = [self._mean(name) for name in learners]
        rows = [row(label, *_differences(*found), total=label == MEAN) for label, found in told.items()]
        heads = chain.from_iterable((self.names[name], "Difference, points") for name in self.against)
        return [Table("Each seed", "Seed", (self.own, *heads), rows)]

    def _mean(self, name: str) -> float:
        return mean(found[name] for found in self.seeds.values())


def _differences(own: float, *others: float) -> list[Cell]:
    beside = ((share(other), points(own - other)) for other in others)
    return [share(own), *chain.from_iterable(beside)]
