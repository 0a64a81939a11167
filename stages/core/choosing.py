"""Which of several files is taken: the limits that each must keep to, and what is best among those that do.

Accuracy here is of val. What test says of the file that was taken is told afterwards, and chooses nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages.core import params
from stages.core.running.errors import Refusal

BASELINE = "teacher"
TWINS = ("quantized", "quantized-portable")  # the same network; the second bears sums of 16 bits
AS_TYPED, EXACT = 12, 15  # digits of a limit, and of any number
ROUNDING = 1e-9  # shares of pictures are differences of floats; a limit that is met to the picture is met


@dataclass(frozen=True)
class Candidate:
    """One file: milliseconds are the median at one thread and one picture, joules of one picture; None where nothing
    was measured. `twin` is the file of the same network that comes before this one on the machine where both were.
    """

    name: str
    bytes: int
    macs: int
    milliseconds: float | None
    joules: float | None
    accuracy: float
    drop: float
    twin: "Candidate | None" = None

    @property
    def time(self) -> float:
        """What was not measured is not fast."""
        return math.inf if self.milliseconds is None else self.milliseconds


@dataclass(frozen=True)
class Line:
    """One limit and what was found; `beyond` is by how much it is missed, in parts of the limit, or as a share where it
    is one, and zero where nothing was measured.
    """

    name: str
    limit: float
    found: float | None
    passed: bool
    beyond: float
    said: str


@dataclass(frozen=True)
class Limit:
    """How a field of the budget is held against a candidate; `digits` are enough for a person."""

    title: str
    found: Callable[[Candidate], float | None]
    unit: str = ""
    units: str = ""
    digits: int = 3
    least: bool = False
    share: bool = False

    def beyond(self, limit: float, found: float) -> float:
        excess = (limit - found if self.least else found - limit) / (1 if self.share else limit)
        return excess if excess > ROUNDING else 0.0

    def told(self, amount: float, digits: int = AS_TYPED) -> str:
        text = f"{self._rounded(amount, digits):,.15g}".replace("-", "−")
        return f"{text} {self.unit if text == '1' else self.units or self.unit}".strip()

    def judged(self, found: float, limit: float | None) -> str:
        """In few digits, but never so few that what fails seems to pass."""
        if limit is None:
            return self.told(found, self.digits)
        passed = self.beyond(limit, found) == 0
        enough = (
            digits
            for digits in range(self.digits, EXACT)
            if (self.beyond(limit, self._rounded(found, digits) / self._scale) == 0) == passed
        )
        return self.told(found, next(enough, EXACT))

    def _rounded(self, amount: float, digits: int) -> float:
        return float(f"{amount * self._scale:.{digits}g}")

    @property
    def _scale(self) -> int:
        return 100 if self.share else 1


LIMITS: Mapping[str, Limit] = {
    "megabytes": Limit("size", lambda file: file.bytes / 1e6, "MB"),
    "macs": Limit("multiply-accumulates", lambda file: file.macs, digits=EXACT),
    "milliseconds": Limit("latency", lambda file: file.milliseconds, "ms"),
    "joules": Limit("energy a picture", lambda file: file.joules, "J"),
    "accuracy": Limit("accuracy on val", lambda file: file.accuracy, "%", least=True, share=True),
    "drop": Limit("drop on val against the teacher", lambda file: file.drop, "point", "points", digits=2, share=True),
}


def limited(budget: params.Budget) -> dict[str, float]:
    return {name: limit for name in LIMITS if (limit := getattr(budget, name)) is not None}


def candidates(benchmarked: Mapping[str, Any], exported: Mapping[str, Any]) -> list[Candidate]:
    """Every file that metrics/benchmark.json and metrics/export.json tell of."""
    try:
        best = exported[BASELINE]["accuracy"]
        _same_files(benchmarked["files"], exported)
        files = {
            name: Candidate(
                name=name,
                bytes=facts["bytes"],
                macs=facts["macs"],
                milliseconds=facts["one_thread"]["median"],
                joules=(facts.get("joules") or {}).get("per_picture"),
                accuracy=exported[name]["accuracy"],
                drop=best - exported[name]["accuracy"],
            )
            for name, facts in benchmarked["files"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise Refusal(f"the metrics of export and benchmark lack {error}: `dvc repro benchmark` writes them") from error
    return _beside_twins(files, (benchmarked.get("machine") or {}).get("integer_products"))


def _beside_twins(files: dict[str, Candidate], products: str | None) -> list[Candidate]:
    """What answers as its network needs no twin: the plain file where products are exact, else the portable one."""
    first, second = TWINS if products != "saturating" else reversed(TWINS)
    if first in files and second in files:
        files[second] = replace(files[second], twin=files[first])
    return list(files.values())


def _same_files(benchmarked: Mapping[str, Any], exported: Mapping[str, Any]) -> None:
    for name, facts in benchmarked.items():
        if facts["bytes"] != exported[name]["bytes"]:
            raise Refusal(
                f"export wrote {exported[name]['bytes']:,} bytes of {name}, benchmark saw {facts['bytes']:,}: these "
                "metrics are not of one run; `dvc repro benchmark` writes them"
            )


def judge(candidate: Candidate, budget: params.Budget) -> list[Line]:
    """A line for each limit that the budget sets; what was not measured does not pass."""
    return [_line(name, limit, candidate) for name, limit in limited(budget).items()]


def _line(name: str, limit: float, candidate: Candidate) -> Line:
    rule = LIMITS[name]
    found = rule.found(candidate)
    asked = f"{rule.title}: at {'least' if rule.least else 'most'} {rule.told(limit)}"
    if found is None:
        return Line(name, limit, None, False, 0.0, f"{asked}, not measurable here: fails")
    beyond = rule.beyond(limit, found)
    passed = beyond == 0
    said = f"{asked}, found {rule.judged(found, limit)}: {'passes' if passed else 'fails'}"
    return Line(name, limit, found, passed, beyond, said)


def passes(candidate: Candidate, budget: params.Budget) -> bool:
    return all(line.passed for line in judge(candidate, budget))


def best(candidates: Sequence[Candidate], budget: params.Budget) -> Candidate | None:
    """The smallest, then the fastest, where the budget says how accurate is enough; else the most accurate, then the
    smallest. None where no file keeps to every limit. Twins are not told apart by noise.
    """
    passing = [candidate for candidate in candidates if passes(candidate, budget)]
    kept = [candidate for candidate in passing if candidate.twin is None or not passes(candidate.twin, budget)]
    enough = budget.accuracy is not None or budget.drop is not None

    def order(file: Candidate) -> tuple[float, ...]:
        return (file.bytes, file.time) if enough else (-file.accuracy, file.bytes, file.time)

    return min(kept, key=order, default=None)


def nearest(candidates: Sequence[Candidate], budget: params.Budget) -> Candidate:
    """What misses the fewest limits, and then those by the least."""

    def misses(file: Candidate) -> tuple[int, float]:
        lines = judge(file, budget)
        return sum(not line.passed for line in lines), sum(line.beyond for line in lines)

    return min(candidates, key=misses)
