"""Results of sweeps, as `lightvision study` writes them down and the page shows them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from pydantic import Field

from stages.core import words
from stages.core.reporting import findings
from stages.core.reporting.findings import Found

Place = str | int | float  # along an axis
SHOWN = ("helps", "hurts")


class Point(Found):
    """One experiment; `low` and `high` are its own interval, where it has one."""

    experiment: str
    at: dict[str, Place]
    value: float
    low: float | None
    high: float | None
    verdict: str | None


class Study(Found):
    """`x` and `y` are parameters, `value` is a metric."""

    version: Literal[1] = Field(alias="schema")
    title: str
    x: str
    y: str | None
    value: str
    points: list[Point] = Field(min_length=1)
    commit: str
    machine: dict[str, str | int | list[str]]
    date: str

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.x, self.y) if self.y else (self.x,)

    @property
    def is_gain(self) -> bool:
        """Whether zero means that nothing was won."""
        return "gain" in self.value.rpartition(".")[2]


@dataclass(frozen=True)
class Cell:
    """Every point at one place; an interval belongs to one experiment, so repeated points have a deviation instead."""

    at: tuple[Place, ...]
    value: float
    n: int
    sd: float | None
    low: float | None
    high: float | None
    verdict: str
    shown: bool
    experiments: tuple[str, ...]


def read(folder: Path) -> dict[str, Study]:
    """Each study of a folder, by its name."""
    found = {path.stem: findings.read(path, Study) for path in sorted(folder.glob("*.json"))}
    for name, study in found.items():
        if any(set(point.at) != set(study.axes) for point in study.points):
            raise findings.Refusal(f"{folder / name}.json: a point lies on other axes than the study's")
    return found


def cells(study: Study) -> list[Cell]:
    """In the order of the axes, x first."""
    places = {tuple(point.at[axis] for axis in study.axes): None for point in study.points}
    order = {axis: along(study, axis) for axis in study.axes}
    ranked = sorted(places, key=lambda at: [order[axis].index(one) for axis, one in zip(study.axes, at, strict=True)])
    return [
        _cell(at, [point for point in study.points if tuple(point.at[axis] for axis in study.axes) == at], study)
        for at in ranked
    ]


def _cell(at: tuple[Place, ...], points: Sequence[Point], study: Study) -> Cell:
    verdicts = [_verdict(point, study) for point in points]
    once = points[0] if len(points) == 1 else None
    counts = {verdict: verdicts.count(verdict) for verdict in verdicts if verdict}
    return Cell(
        at=at,
        value=mean(point.value for point in points),
        n=len(points),
        sd=None if once else stdev(point.value for point in points),
        low=once.low if once else None,
        high=once.high if once else None,
        verdict=verdicts[0] if once else ", ".join(f"{count} {verdict}" for verdict, count in counts.items()),
        shown=len(set(verdicts)) == 1 and verdicts[0] in SHOWN,
        experiments=tuple(point.experiment for point in points),
    )


def _verdict(point: Point, study: Study) -> str:
    """The experiment's own, or what the interval of a gain says; without an interval nothing is shown."""
    if point.verdict or not study.is_gain:
        return point.verdict or ""
    if point.low is None or point.high is None or point.low <= 0 <= point.high:
        return "not shown"
    return "helps" if point.low > 0 else "hurts"


def along(study: Study, axis: str) -> list[Place]:
    """The places of an axis: numbers by size, then texts with their numbers by size."""
    return sorted({point.at[axis] for point in study.points}, key=_rank)


def _rank(place: Place) -> tuple[bool, float, list[tuple[bool, float, str]]]:
    if not isinstance(place, str):
        return False, place, []
    parts = re.split(r"(\d+(?:\.\d+)?)", place)
    return True, 0, [(part[:1].isdigit(), float(part) if part[:1].isdigit() else 0, part) for part in parts]


def label(place: Place) -> str:
    return place if isinstance(place, str) else f"{place:g}"


def said(value: float, study: Study) -> str:
    """In the unit that a person expects of such a metric."""
    if study.is_gain:
        return words.points(value)
    return words.percent(value) if is_share(study) else f"{value:.4g}"


def spread(value: float, study: Study) -> str:
    """Of a standard deviation, which has no sign."""
    return f"{value * 100:.2f}" if study.is_gain or is_share(study) else f"{value:.2g}"


def is_share(study: Study) -> bool:
    """Accuracies are shares, and the page shows them as percents."""
    last = study.value.rpartition(".")[2]
    return "accuracy" in last or "agreement" in last


def unit(study: Study) -> str:
    """The metric's name with what it is counted in."""
    if study.is_gain:
        return f"{study.value}, points"
    return f"{study.value}, %" if is_share(study) else study.value


def sureness(cell: Cell, study: Study) -> str:
    """What is known of the value beside itself."""
    if cell.sd is not None:
        return f"sd {spread(cell.sd, study)}"
    if cell.low is None or cell.high is None:
        return ""
    return f"[{said(cell.low, study)}, {said(cell.high, study)}]"
