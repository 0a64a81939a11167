"""Results of sweeps, as `lightvision study` writes them down and the page shows them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from pydantic import Field, model_validator

from stages.core import words
from stages.core.reporting import findings
from stages.core.reporting.findings import Found
from stages.core.running.errors import Refusal

Place = str | int | float  # along an axis
SHOWN = ("helps", "hurts")
MOST = 6  # lines that can be told apart


class Measured(Found):
    """`low` and `high` are the experiment's own interval, where it has one."""

    value: float
    low: float | None
    high: float | None
    verdict: str | None


class Point(Found):
    """One experiment, with those of the metrics that it has."""

    experiment: str
    at: dict[str, Place]
    found: dict[str, Measured] = Field(min_length=1)


class Study(Found):
    """`x` and `y` are parameters, `values` are metrics; several of them are lines over one axis."""

    version: Literal[2] = Field(alias="schema")
    title: str
    x: str
    y: str | None
    values: list[str] = Field(min_length=1)
    points: list[Point] = Field(min_length=1)
    commit: str
    machine: dict[str, Any]
    date: str

    @model_validator(mode="before")
    @classmethod
    def _as_now(cls, content: Any) -> Any:
        """The first studies had one metric each."""
        if not isinstance(content, dict) or content.get("schema") != 1:
            return content
        try:
            return content | {
                "schema": 2,
                "values": [content["value"]],
                "points": [
                    {"experiment": one["experiment"], "at": one["at"]}
                    | {"found": {content["value"]: {key: one[key] for key in Measured.model_fields}}}
                    for one in content["points"]
                ],
            }
        except (KeyError, TypeError) as error:
            raise ValueError(f"a study of schema 1 lacks {error}") from error

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.x, self.y) if self.y else (self.x,)

    @property
    def metrics(self) -> list["Metric"]:
        return [Metric(name) for name in self.values]


@dataclass(frozen=True)
class Metric:
    """A metric's name tells what it is counted in."""

    name: str

    @property
    def is_gain(self) -> bool:
        """Whether zero means that nothing was won."""
        return "gain" in self._last

    @property
    def is_share(self) -> bool:
        """Accuracies are shares, and the page shows them as percents."""
        return "accuracy" in self._last or "agreement" in self._last

    @property
    def counted_in(self) -> str:
        return "points" if self.is_gain else "%" if self.is_share else ""

    @property
    def factor(self) -> int:
        return 100 if self.counted_in else 1

    @property
    def unit(self) -> str:
        """The metric's name with what it is counted in."""
        return f"{self.name}, {self.counted_in}" if self.counted_in else self.name

    @property
    def _last(self) -> str:
        return self.name.rpartition(".")[2]


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
            raise Refusal(f"{folder / name}.json: a point lies on other axes than the study's")
        if reason := objection(study.values, study.y):
            raise Refusal(f"{folder / name}.json: {reason}")
    return found


def objection(values: Sequence[str], y: str | None) -> str:
    """Why these metrics cannot be shown together."""
    if len(values) > 1 and y:
        return f"two axes show one value, and here are {len(values)}: leave out --y, or make a study of each"
    if len(set(values)) < len(values) or len(values) > MOST:
        return f"up to {MOST} values, each once, can be told apart, and here are {', '.join(values)}"
    units = {Metric(name).counted_in: name for name in values}
    if len(units) > 1:
        told = (f"{name} in {unit or 'its own unit'}" for unit, name in units.items())
        return f"one axis has one unit, and values are counted in several: {', '.join(told)}"
    return ""


def cells(study: Study, metric: Metric) -> list[Cell]:
    """In the order of the axes, x first; where no point has the metric there is none."""
    places: dict[tuple[Place, ...], list[Point]] = {}
    for point in study.points:
        if metric.name in point.found:
            places.setdefault(tuple(point.at[axis] for axis in study.axes), []).append(point)
    order = {axis: along(study, axis) for axis in study.axes}
    ranked = sorted(places, key=lambda at: [order[axis].index(one) for axis, one in zip(study.axes, at, strict=True)])
    return [_cell(at, places[at], metric) for at in ranked]


def _cell(at: tuple[Place, ...], points: Sequence[Point], metric: Metric) -> Cell:
    found = [point.found[metric.name] for point in points]
    verdicts = [_verdict(one, metric) for one in found]
    once = found[0] if len(found) == 1 else None
    counts = {verdict: verdicts.count(verdict) for verdict in verdicts if verdict}
    return Cell(
        at=at,
        value=mean(one.value for one in found),
        n=len(found),
        sd=None if once else stdev(one.value for one in found),
        low=once.low if once else None,
        high=once.high if once else None,
        verdict=verdicts[0] if once else ", ".join(f"{count} {verdict}" for verdict, count in counts.items()),
        shown=len(set(verdicts)) == 1 and verdicts[0] in SHOWN,
        experiments=tuple(point.experiment for point in points),
    )


def _verdict(found: Measured, metric: Metric) -> str:
    """The experiment's own, or what the interval of a gain says; without an interval nothing is shown."""
    if found.verdict or not metric.is_gain:
        return found.verdict or ""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "not shown"
    return "helps" if found.low > 0 else "hurts"


def lines(study: Study) -> list[tuple[Place, list[Cell | None]]]:
    """Each place along x, with a cell for each metric that was measured there."""
    found = [{cell.at[0]: cell for cell in cells(study, metric)} for metric in study.metrics]
    return [(place, [by_place.get(place) for by_place in found]) for place in along(study, study.x)]


def legend(names: Sequence[str]) -> list[str]:
    """As a person would say them: without what all of them begin with."""
    parts = [name.split(".") for name in names]
    levels = zip(*(one[:-1] for one in parts), strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    return [re.sub(r"[._-]+", " ", ".".join(one[shared:])) for one in parts]


def along(study: Study, axis: str) -> list[Place]:
    """The places of an axis: numbers by size, then texts with their numbers by size."""
    return sorted({point.at[axis] for point in study.points}, key=_rank)


def counts(study: Study) -> bool:
    """Whether the places along x are numbers, between which there are others."""
    return not any(isinstance(place, str) for place in along(study, study.x))


def _rank(place: Place) -> tuple[bool, float, list[tuple[bool, float, str]]]:
    if not isinstance(place, str):
        return False, place, []
    parts = re.split(r"(\d+(?:\.\d+)?)", place)
    return True, 0, [(part[:1].isdigit(), float(part) if part[:1].isdigit() else 0, part) for part in parts]


def label(place: Place) -> str:
    return place if isinstance(place, str) else f"{place:g}"


def said(value: float, metric: Metric) -> str:
    """In the unit that a person expects of such a metric."""
    if metric.is_gain:
        return words.points(value)
    return words.percent(value) if metric.is_share else f"{value:.4g}"


def spread(value: float, metric: Metric) -> str:
    """Of a standard deviation, which has no sign."""
    return f"{value * 100:.2f}" if metric.counted_in else f"{value:.2g}"


def sureness(cell: Cell, metric: Metric) -> str:
    """What is known of the value beside itself."""
    if cell.sd is not None:
        return f"sd {spread(cell.sd, metric)}"
    if cell.low is None or cell.high is None:
        return ""
    return f"[{said(cell.low, metric)}, {said(cell.high, metric)}]"
