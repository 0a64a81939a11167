"""What a search may change: a strict file of dimensions over params.yaml."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.running.errors import Refusal

DIGITS = 12  # 3 steps of 0.1 are 0.3
WORD = re.compile(r"[A-Za-z_][\w.-]*")
JUDGES = (
    "seed",
    "evaluate",
    "export",
    "convert",
    "benchmark",
    "report",
)  # no search may bend what files are measured by
PREPARES = ("prepare.image_size", "prepare.fit")  # all else there decides which pictures are val

Text = Annotated[str, Field(min_length=1)]
Number = int | float
Coordinates = Mapping[str, Any]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Dimension(Strict):
    """A parameter, by its dotted name, with the values it may take: choices, which are told apart by their number, or a
    range, of whole numbers where both ends are such.
    """

    set: Text
    choices: Annotated[list[Any], Field(min_length=2)] | None = None
    low: Number | None = None
    high: Number | None = None
    step: Number | None = None
    log: bool = False

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Dimension":
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.step is not None or self.log:
                raise ValueError(f"{self.set} has choices, so it has no low, high, step or log")
            if any(choice in self.choices[:place] for place, choice in enumerate(self.choices)):
                raise ValueError(f"{self.set} has one choice twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError(f"{self.set} needs choices, or low and high")
        if self.low >= self.high:
            raise ValueError(f"{self.set}: low is below high, not {self.low} to {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"{self.set}: a log range begins above 0 and has no step")
        if self.step is not None and not self._fits(self.step):
            raise ValueError(f"{self.set}: from {self.low} to {self.high} is not whole steps of {self.step}")
        return self

    def _fits(self, step: Number) -> bool:
        low, high = self.ends
        whole = (high - low) / step if step > 0 else 0.0
        return whole >= 1 and math.isclose(whole, round(whole), rel_tol=1e-9)

    @property
    def ends(self) -> tuple[Number, Number]:
        if self.low is None or self.high is None:
            raise TypeError(f"{self.set} has no ends")
        return self.low, self.high

    @property
    def is_whole(self) -> bool:
        return all(isinstance(number, int) for number in (*self.ends, 1 if self.step is None else self.step))

    @property
    def grid(self) -> Number | None:
        """The step between values that a range has; None where it has any."""
        return self.step or (1 if self.is_whole else None)

    @property
    def count(self) -> int | None:
        """Of different coordinates; None where nobody can count them."""
        if self.choices is not None:
            return len(self.choices)
        low, high = self.ends
        return None if self.grid is None else round((high - low) / self.grid) + 1

    @cached_property
    def distribution(self) -> BaseDistribution:
        if self.choices is not None:
            return CategoricalDistribution(range(len(self.choices)))
        low, high = self.ends
        if self.is_whole:
            return IntDistribution(int(low), int(high), self.log, int(self.step or 1))
        return FloatDistribution(low, high, self.log, self.step)

    def at(self, share: float) -> Any:
        """The coordinate that lies so far along, from 0 to below 1."""
        if self.choices is not None:
            return int(share * len(self.choices))
        low, high = self.ends
        if self.log:
            found = low * (high / low) ** share
            return round(found) if self.is_whole else self.tidy(found)
        if self.grid is not None and self.count is not None:
            return self.tidy(low + int(share * self.count) * self.grid)
        return self.tidy(low + share * (high - low))

    def tidy(self, coordinate: Any) -> Any:
        return float(f"{coordinate:.{DIGITS}g}") if isinstance(coordinate, float) else coordinate

    def coordinate(self, value: Any) -> Any:
        """Where a value of params.yaml lies, None if it is none of these."""
        if self.choices is not None:
            return self.choices.index(value) if value in self.choices else None
        low, high = self.ends
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            return None
        if self.grid is not None and not math.isclose((value - low) / self.grid, round((value - low) / self.grid)):
            return None
        return self.tidy(int(value) if self.is_whole else float(value))

    def value(self, coordinate: Any) -> Any:
        return self.choices[coordinate] if self.choices is not None else coordinate

    def sets(self, value: Any) -> tuple[str, ...]:
        """As `dvc exp run -S` takes it; an entry with other keys goes before it comes."""
        first = (f"{self.set}=null",) if isinstance(value, dict) else ()
        return (*first, f"{self.set}={written(value)}")

    @property
    def samples(self) -> list[Any]:
        """Values that are checked before anything runs."""
        return list(self.choices) if self.choices is not None else [self.tidy(end) for end in self.ends]


class Space(Strict):
    """`about` says what for; the dimensions are searched together."""

    about: Text
    dimensions: Annotated[list[Dimension], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_apart(self) -> "Space":
        names = sorted(dimension.set for dimension in self.dimensions)
        for one, other in itertools.pairwise(names):
            if one == other or other.startswith(f"{one}."):
                raise ValueError(f"{one} and {other} are in each other's way: a value is set once")
        for name in names:
            section = name.partition(".")[0]
            if section in JUDGES or (section == "prepare" and name not in PREPARES):
                raise ValueError(f"{name} decides how files are judged, so that it cannot be searched")
        return self

    @property
    def count(self) -> int | None:
        """Of different points."""
        counts = [dimension.count for dimension in self.dimensions]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def check(self, params: Mapping[str, Any]) -> None:
        """Every dimension is there."""
        for dimension in self.dimensions:
            _reach(params, dimension.set)

    def coordinates(self, params: Mapping[str, Any]) -> Coordinates | None:
        """Where these parameters lie, None if it is outside."""
        found = {one.set: one.coordinate(_reach(params, one.set)) for one in self.dimensions}
        return None if None in found.values() else found

    def sets(self, coordinates: Coordinates) -> tuple[str, ...]:
        return tuple(text for one in self.dimensions for text in one.sets(one.value(coordinates[one.set])))

    def samples(self) -> Iterator[tuple[str, ...]]:
        """Each value beside the defaults."""
        return (dimension.sets(value) for dimension in self.dimensions for value in dimension.samples)


def read(file: Path) -> Space:
    if not file.is_file():
        raise Refusal(f"{file} is not there: a search space is a file such as studies/search.yaml")
    try:
        return Space.model_validate(YAML(typ="safe").load(file))
    except YAMLError as error:
        raise Refusal(f"{file} is not YAML: {error}") from error
    except ValidationError as error:
        raise Refusal("; ".join(f"{file}: {_explain(dict(detail))}" for detail in error.errors())) from error


def rungs(text: str, space: Space, params: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """`distill.training.epochs=2,5,10` as what each round of points sets."""
    name, _, listed = text.partition("=")
    try:
        values = YAML(typ="safe").load(f"[{listed}]")
    except YAMLError:
        values = []
    if len(values) < 2 or not all(type(value) in (int, float) for value in values) or sorted(set(values)) != values:
        raise Refusal(f"--halving is a parameter and numbers that rise, such as prune.training.epochs=2,6, not {text}")
    if any(one.set == name or name.startswith(f"{one.set}.") for one in space.dimensions):
        raise Refusal(f"--halving {name}: it is a dimension of the space already")
    halved = Dimension(set=name, choices=values)
    Space(about=text, dimensions=[halved]).check(params)
    return [halved.sets(value) for value in values]


def _explain(detail: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = Dimension if detail["loc"][0] == "dimensions" else Space
        return f"{where} is not known here; allowed: {', '.join(known.model_fields)}"
    return ": ".join(filter(None, (where, detail["msg"].removeprefix("Value error, "))))


def _reach(params: Mapping[str, Any], name: str) -> Any:
    content: Any = params
    for part in name.split("."):
        if not isinstance(content, Mapping) or part not in content:
            known = ", ".join(map(str, content)) if isinstance(content, Mapping) else "nothing"
            raise Refusal(f"{name} is not in params.yaml; instead of {part!r} allowed here: {known}")
        content = content[part]
    return content


def written(value: Any) -> str:
    """In the words of an override."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str) and not (WORD.fullmatch(value) and value.lower() not in ("null", "true", "false")):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
