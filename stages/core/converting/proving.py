"""A target, made and proved in processes of their own: what it holds, what it answers, how long that takes."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import params
from stages.core.clocking import intervals
from stages.core.converting import asking
from stages.core.converting.asking import Unable
from stages.core.converting.makers.protocol import Handed
from stages.core.converting.table import TARGETS, Found, Target
from stages.core.datasets.storage import Facts
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.shipping import gate
from stages.core.shipping.gate import Parity

TOLD = ("runtime", "kind", "input", "types", "operators", "transposes", "delegated")


@dataclass(frozen=True)
class Judging:
    """Stored pictures of val with their labels, and what each network answers to them."""

    images: Path
    labels: np.ndarray
    answers: Mapping[str, np.ndarray]


def make(name: str, handed: Handed, to: Path) -> Path:
    target = TARGETS[name]
    asking.convert(target.maker, handed.folder, to / name, target.kind)
    file = to / f"{name}{target.suffix}"
    if not file.is_file():
        raise Refusal(f"{target.maker} wrote no {file.name}")
    return file


def discard(name: str, to: Path) -> None:
    """What a maker left that is no target."""
    for path in to.glob(f"{name}.*"):
        files.remove(path)


def without_folders(why: str) -> str:
    """Of this machine: what is told of a file is read on others."""
    return re.sub(r"""(?<![^\s'"(=])/\S*/""", "", why)


def prove(name: str, file: Path, judging: Judging, limits: params.Convert) -> dict[str, Any]:
    """Its row among the metrics; a file that is not what its name says is refused."""
    target = TARGETS[name]
    found = asking.describe(target.maker, file)
    _refuse_other_content(target, found)
    answered, milliseconds = asking.answers(target.maker, file, judging.images, timed=True)
    parity = _compared(target, judging.answers[target.of], answered, judging.labels, limits)
    times = np.array(milliseconds)
    low, high = intervals.interval(times, np.median, limits.confidence)
    return {
        "made": True,
        "file": file.name,
        "bytes": sum(path.stat().st_size for path in written(file)),
        "of": target.of,
        **{told: found[told] for told in TOLD},
        **dataclasses.asdict(parity),
        "milliseconds": float(np.median(times)),
        "milliseconds_low": low,
        "milliseconds_high": high,
        "calls": len(times),
    }


def card(name: str, file: Path, facts: Facts, found: Found, model: str) -> dict[str, Any]:
    """All that a program needs which runs the file; `model` is the digest of the network that it was made of."""
    target = TARGETS[name]
    return {
        "target": name,
        "maker": target.maker,
        "runtime": found["runtime"],
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": files.digest(path)} for path in written(file)},
        "classes": list(facts.classes),
        "image_size": facts.image_size,
        "fit": facts.fit,
        "mean": list(facts.mean),
        "std": list(facts.std),
        "input": found["input"],
        "of": target.of,
        "model": model,
    }


def written(file: Path) -> list[Path]:
    """A target may be more than one file; its card is none of them."""
    return sorted(path for path in file.parent.glob(f"{file.stem}.*") if path.suffix != ".json")


def _refuse_other_content(target: Target, found: Found) -> None:
    wrong = target.rule(found)
    if wrong:
        held = ", ".join(f"{count} of {kind}" for kind, count in sorted(found["types"].items()))
        raise Unable(f"it is not what its name says: {wrong}; its tensors: {held}")


def _compared(
    target: Target, network: np.ndarray, answered: np.ndarray, labels: np.ndarray, limits: params.Convert
) -> Parity:
    if answered.shape != network.shape:
        raise Refusal(f"it answers {answered.shape}, its network {network.shape}: the file has other classes")
    if not np.isfinite(answered).all():
        raise Refusal("it gives answers that are not finite")
    found = gate.compare(network, answered, labels, limits.confidence)
    tolerance: params.Tolerance = getattr(limits, target.gate)
    if found.agreement < tolerance.min_agreement or found.accuracy_drop > tolerance.max_accuracy_drop:
        raise Refusal(
            f"it is not the network it was made from: it agrees on {found.agreement:.2%} of val (the gate: "
            f"{tolerance.min_agreement:.2%}) and loses {found.accuracy_drop:.2%} accuracy (the gate: "
            f"{tolerance.max_accuracy_drop:.2%}). Leave it out of convert.targets, or loosen "
            f"convert.{target.gate}"
        )
    return found
