"""Which of several files is taken: the limits that each must keep to, and what is best among those that do.

Accuracy here is of val. What test says of the file that was taken is told afterwards, and chooses nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core import params
from stages.core.running.errors import Refusal

BASELINE = "teacher"
ROUNDING = 1e-9  # shares of pictures are differences of floats; a limit that is met to the picture is met


@dataclass(frozen=True)
class Candidate:
    """One file: milliseconds are the median at one thread and one picture, joules of one picture."""

    name: str
    bytes: int
    macs: int
    milliseconds: float
    joules: float | None
    accuracy: float
    drop: float


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
    """How a field of the budget is held against a candidate."""

    title: str
    found: Callable[[Candidate], float | None]
    told: Callable[[float], str]
    least: bool = False
    share: bool = False

    def beyond(self, limit: float, found: float) -> float:
        excess = (limit - found if self.least else found - limit) / (1 if self.share else limit)
        return excess if excess > ROUNDING else 0.0


def _amount(unit: str) -> Callable[[float], str]:
    return lambda amount: f"{amount:.6g} {unit}".strip()


def _hundredths(unit: str) -> Callable[[float], str]:
    return lambda share: f"{share * 100:.6g} {unit}"


LIMITS: Mapping[str, Limit] = {
    "megabytes": Limit("size", lambda file: file.bytes / 1e6, _amount("MB")),
    "macs": Limit("multiply-accumulates", lambda file: file.macs, lambda macs: f"{macs:,.0f}"),
    "milliseconds": Limit("latency", lambda file: file.milliseconds, _amount("ms")),
    "joules": Limit("energy a picture", lambda file: file.joules, _amount("J")),
    "accuracy": Limit("accuracy on val", lambda file: file.accuracy, _hundredths("%"), least=True, share=True),
    "drop": Limit("drop on val against the teacher", lambda file: file.drop, _hundredths("points"), share=True),
}


def limited(budget: params.Budget) -> dict[str, float]:
    return {name: limit for name in LIMITS if (limit := getattr(budget, name)) is not None}


def candidates(benchmarked: Mapping[str, Any], exported: Mapping[str, Any]) -> list[Candidate]:
    """Every file that metrics/benchmark.json and metrics/export.json tell of."""
    try:
        best = exported[BASELINE]["accuracy"]
        _same_files(benchmarked["files"], exported)
        return [
            Candidate(
                name=name,
                bytes=facts["bytes"],
                macs=facts["macs"],
                milliseconds=facts["one_thread"]["median"],
                joules=(facts.get("joules") or {}).get("per_picture"),
                accuracy=exported[name]["accuracy"],
                drop=best - exported[name]["accuracy"],
            )
            for name, facts in benchmarked["files"].items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise Refusal(f"the metrics of export and benchmark lack {error}: `dvc repro benchmark` writes them") from error


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
    said = f"{asked}, found {rule.told(found)}: {'passes' if passed else 'fails'}"
    return Line(name, limit, found, passed, beyond, said)


def passes(candidate: Candidate, budget: params.Budget) -> bool:
    return all(line.passed for line in judge(candidate, budget))


def best(candidates: Sequence[Candidate], budget: params.Budget) -> Candidate | None:
    """The smallest, then the fastest, where the budget says how accurate is enough; else the most accurate, then the
    smallest. None where no file keeps to every limit.
    """
    kept = [candidate for candidate in candidates if passes(candidate, budget)]
    enough = budget.accuracy is not None or budget.drop is not None

    def order(file: Candidate) -> tuple[float, ...]:
        return (file.bytes, file.milliseconds) if enough else (-file.accuracy, file.bytes, file.milliseconds)

    return min(kept, key=order, default=None)


def nearest(candidates: Sequence[Candidate], budget: params.Budget) -> Candidate:
    """What misses the fewest limits, and then those by the least."""

    def misses(file: Candidate) -> tuple[int, float]:
        lines = judge(file, budget)
        return sum(not line.passed for line in lines), sum(line.beyond for line in lines)

    return min(candidates, key=misses)
