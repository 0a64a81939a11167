"""Which file for which kind of device: of those that run there, what the budget asks for.

Latency is of one kind of processor only. Where nobody measured it, limits of time and of energy are not held against a
file, and that is said; where a bundle's benchmark ran on such a device, its numbers are.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from stages.core import choosing, params, words
from stages.core.choosing import TWINS, Candidate, Line
from stages.core.running.errors import Refusal

SHIPPED = "*.onnx"
PAIRS = ("quantized.onnx", "onnx_packed", "ort_int8", "openvino_int8")  # of uint8 and int8, on x86
Facts = Mapping[str, Any]
MEASURED_ELSEWHERE = ("milliseconds", "joules")


@dataclass(frozen=True)
class Kind:
    """A kind of device: patterns of the files that run there, what `integer_products` its processor makes, and what
    the benchmark's machine calls itself there.
    """

    title: str
    runs: tuple[str, ...]
    system: str = ""
    products: Literal["exact", "saturating"] = "exact"


KINDS: Mapping[str, Kind] = {
    "x86": Kind(
        "PC or server, x86 with VNNI or AMX", (SHIPPED, "onnx_*", "ort_*", "openvino_*", "torch_*"), "Linux x86_64"
    ),
    "x86-old": Kind(
        "PC or server, x86 without VNNI",
        (SHIPPED, "onnx_*", "ort_*", "openvino_*", "torch_*"),
        "Linux x86_64",
        "saturating",
    ),
    "arm": Kind(
        "Raspberry Pi and other arm64 Linux",
        (SHIPPED, "onnx_*", "ort_*", "litert_*", "executorch_*", "ncnn_*", "openvino_*"),
        "Linux aarch64",
    ),
    "phone": Kind("phone", (SHIPPED, "onnx_*", "ort_*", "litert_*", "executorch_*", "ncnn_*"), "Android"),
    "browser": Kind("browser", (SHIPPED, "ort_*")),
    "integers": Kind("accelerator of integers alone", ("litert_int8",)),
}


@dataclass(frozen=True)
class Measured:
    """What a bundle's benchmark found on a device, file by file."""

    device: str
    system: str
    products: str
    agreement: float | None
    files: Mapping[str, Facts]


@dataclass(frozen=True)
class Advice:
    """Where no file keeps to the budget, `taken` is the one that comes nearest; None where none runs there."""

    kind: Kind
    taken: Candidate | None
    keeps: bool
    reason: str
    lines: Sequence[Line] = ()


def read(folder: Path) -> list[Measured]:
    """Every device's file of a folder."""
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Measured:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        machine = told["machine"]
        files = {
            name: dict(facts, milliseconds=float(facts["one_thread"]["median"]))
            for name, facts in told["files"].items()
        }
        agreement = told.get("agreement")
        return Measured(str(told["device"]), str(machine["system"]), str(machine["integer_products"]), agreement, files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(
            f"{path} is no device's benchmark ({type(error).__name__}: {error}): a bundle's benchmark.py writes one"
        ) from error


def candidates(
    shipped: Sequence[Candidate], converted: Mapping[str, Any], machine: Mapping[str, Any]
) -> list[Candidate]:
    """The shipped files and what was made of them; what is as large as the file that it was made of is that file, and
    what was timed on another machine than those has no latency.
    """
    together = converted["machine"]["cpu"] == machine["cpu"]
    plain = [replace(file, name=f"{file.name}.onnx", twin=None) for file in shipped]
    by_name = {file.name: file for file in plain}
    teacher = by_name[f"{choosing.BASELINE}.onnx"]
    made = [
        Candidate(
            name=name,
            bytes=facts["bytes"],
            macs=by_name[f"{facts['of']}.onnx"].macs,
            milliseconds=facts["milliseconds"] if together else None,
            joules=None,
            accuracy=facts["accuracy"],
            drop=teacher.accuracy - facts["accuracy"],
        )
        for name, facts in converted["targets"].items()
        if facts["made"] and facts["bytes"] != by_name[f"{facts['of']}.onnx"].bytes
    ]
    return [*plain, *made]


def advise(
    files: Sequence[Candidate],
    budget: params.Budget,
    machine: Mapping[str, Any],
    saturates: bool,
    measured: Iterable[Measured] = (),
) -> list[Advice]:
    """For each of KINDS, in their order; `saturates` where some pair of products is too large for 16 bits."""
    devices = list(measured)
    return [_advise(kind, files, budget, machine, saturates, devices) for kind in KINDS.values()]


def _advise(
    kind: Kind,
    files: Sequence[Candidate],
    budget: params.Budget,
    machine: Mapping[str, Any],
    saturates: bool,
    measured: Sequence[Measured],
) -> Advice:
    running = [file for file in files if any(fnmatch(file.name, pattern) for pattern in kind.runs)]
    left_out = _unsafe(kind, running, saturates)
    running = _twins_apart(kind, [file for file in running if file.name not in left_out])
    if not running:
        return Advice(
            kind,
            None,
            False,
            f"No file was made that runs there: convert.targets names none of {', '.join(kind.runs)}.",
        )
    here = (machine["system"], machine["integer_products"]) == (kind.system, kind.products)
    there = [one for one in measured if (one.system, one.products) == (kind.system, kind.products)]
    note = "Latency is of the benchmark's machine, one of this kind."
    if there:
        named = words.listed([one.device for one in there])
        running = _as_measured(running, there)
        note = f"Latency is of {named}; what was not timed there passes no limit of it."
    elif not here:
        budget, note = _without_time(budget)
    return _chosen(kind, running, budget, note, left_out)


def _chosen(
    kind: Kind, files: Sequence[Candidate], budget: params.Budget, note: str, left_out: Sequence[str]
) -> Advice:
    best = choosing.best(files, budget)
    taken = best or choosing.nearest(files, budget)
    lines = choosing.judge(taken, budget)
    missed = "; ".join(line.said for line in lines if not line.passed)
    nearest = f"No file that runs there keeps to the budget; this one comes nearest: {missed}."
    reason = _why(files, budget) if best else nearest
    if left_out:
        note = f"{note} Left out, since their sums of 16 bits may saturate there: {words.listed(list(left_out))}."
    return Advice(kind, taken, best is not None, f"{reason} {note}", lines)


def _why(files: Sequence[Candidate], budget: params.Budget) -> str:
    kept = sum(choosing.passes(file, budget) for file in files)
    there = f"Of {words.plural(len(files), 'file')} that run there"
    if kept == 1:
        return f"{there} this is the only one that keeps to the budget."
    enough = budget.accuracy is not None or budget.drop is not None
    return f"{there} {kept} keep to the budget; this is the {'smallest' if enough else 'most accurate on val'}."


def _unsafe(kind: Kind, running: Sequence[Candidate], saturates: bool) -> list[str]:
    return [file.name for file in running if kind.products == "saturating" and saturates and file.name in PAIRS]


def _twins_apart(kind: Kind, running: Sequence[Candidate]) -> list[Candidate]:
    """Where products are exact, the portable file is there for nothing."""
    first, second = (f"{name}.onnx" for name in TWINS)
    named = {file.name: file for file in running}
    twin = named.get(first)
    if kind.products == "exact" and twin is not None:
        return [replace(file, twin=twin) if file.name == second else file for file in running]
    return list(running)


def _as_measured(running: Sequence[Candidate], there: Sequence[Measured]) -> list[Candidate]:
    """The slowest device counts. What was not timed on one has no latency there, and passes no limit of it."""
    return [replace(file, milliseconds=_slowest(file, there), joules=None) for file in running]


def _slowest(file: Candidate, there: Sequence[Measured]) -> float | None:
    name = file.name.removesuffix(".onnx")
    times = [one.files[name]["milliseconds"] for one in there if one.files.get(name, {}).get("bytes") == file.bytes]
    return max(times, default=None)


def _without_time(budget: params.Budget) -> tuple[params.Budget, str]:
    asked = [choosing.LIMITS[name].title for name in MEASURED_ELSEWHERE if getattr(budget, name) is not None]
    judged = f"; its limits of {words.listed(asked)} are not judged" if asked else ""
    left = budget.model_copy(update=dict.fromkeys(MEASURED_ELSEWHERE))
    return left, f"Nothing was timed on such a device{judged}."
