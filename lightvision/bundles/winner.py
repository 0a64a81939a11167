"""The file that a bundle is made of: which it is, why, what it says of itself, and what it answers here."""

import json
import math
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightvision import revisions
from lightvision.runs import SHIPPED, Run
from stages.core import choosing, params, statistics
from stages.core.choosing import Candidate
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.predicting.classifying import Classifier
from stages.core.predicting.errors import Unusable
from stages.core.predicting.model import load
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.shipping import running

VAL = Path("data/val")
MEASURED = ("export", "benchmark")
CONFIDENCE = 0.95
AT_ONCE = 256
CHECKED = 16  # pictures of val that go along, with what the file answers here
TOLD = ("dataset", "mean", "std", "model")
UNKNOWN_PROCESSOR = {"integer_products": "saturating"}  # nobody knows where a bundle will run


@dataclass(frozen=True)
class Checks:
    """Pictures of val as the file takes them, uint8 [n, height, width, 3], and its probabilities [n, classes]."""

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Winner:
    """`told` is the file's own metadata; `accuracy` of val and test, as far as it was measured, with its interval."""

    file: Path
    name: str
    told: Mapping[str, str]
    classes: tuple[str, ...]
    image_size: int
    fit: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    why: str
    accuracy: Mapping[str, Mapping[str, float] | None]
    checks: Checks
    commit: str

    @property
    def sha256(self) -> str:
        return files.digest(self.file)

    @property
    def bytes(self) -> int:
        return self.file.stat().st_size


def chosen(budget: params.Budget) -> Winner | str:
    """Of this workspace's files, by val; or why none is."""
    run = revisions.of_workspace()
    candidates = bound_for_anywhere(run)
    best = choosing.best(candidates, budget)
    if best is None:
        nearest = choosing.nearest(candidates, budget)
        failed = "; ".join(line.said for line in choosing.judge(nearest, budget) if not line.passed)
        return f"no file keeps to every limit; {nearest.name} is nearest, and stopped by {failed}"
    path = Path(SHIPPED) / f"{best.name}.onnx"
    if not path.is_file():
        raise Refusal(f"{path} is not here: `dvc checkout {SHIPPED}` or `dvc repro export` brings it")
    return _described(path, _why(best, budget, len(candidates)), run)


def bound_for_anywhere(run: Run) -> list[Candidate]:
    """Of twins the portable one comes first, since the file leaves the machine that it was measured on."""
    return choosing.candidates({**run.found("benchmark"), "machine": UNKNOWN_PROCESSOR}, run.found("export"))


def given(path: Path) -> Winner:
    if not path.is_file():
        raise Refusal(f"{path} is no file: name an exported one, such as {SHIPPED}/quantized.onnx")
    return _described(path, "it was named on the command line", revisions.of_workspace())


def _why(best: Candidate, budget: params.Budget, among: int) -> str:
    lines = "; ".join(line.said for line in choosing.judge(best, budget)) or "no limit was set"
    enough = budget.accuracy is not None or budget.drop is not None
    order = "the smallest" if enough else "the most accurate on val, then the smallest,"
    return f"{order} of {among} files that keeps to the limits ({lines})"


def _described(path: Path, why: str, run: Run) -> Winner:
    try:
        model = load(path, threads=1)
    except Unusable as problem:
        raise Refusal(str(problem)) from problem
    told = running.facts(path)
    if lacking := [name for name in TOLD if name not in told]:
        raise Refusal(f"{path} does not tell its {', '.join(lacking)}: `dvc repro export` writes it anew")
    val = _val(path, model)
    return Winner(
        file=path,
        name=path.stem,
        told=told,
        classes=model.classes,
        image_size=model.image_size,
        fit=model.fit,
        mean=tuple(json.loads(told["mean"])),
        std=tuple(json.loads(told["std"])),
        why=why,
        accuracy=_accuracy(path, model, val, run),
        checks=_checks(model, val),
        commit=_commit(),
    )


def _val(path: Path, model: Classifier) -> Split:
    if not (VAL / "split.json").is_file():
        raise Refusal(f"{VAL} is not here, by which a bundle is checked: `dvc checkout {VAL}` or `dvc repro prepare`")
    val = storage.load(VAL)
    if (val.facts.classes, val.facts.image_size) != (model.classes, model.image_size):
        raise Refusal(
            f"{path} knows other classes, or pictures of another size, than {VAL}: bundle it where it is from"
        )
    return val


def _checks(model: Classifier, val: Split) -> Checks:
    at = np.unique(np.linspace(0, len(val) - 1, CHECKED).round().astype(int))
    images = np.ascontiguousarray(val.images[at])
    return Checks(images, val.labels[at], model.probabilities(images))


def _accuracy(path: Path, model: Classifier, val: Split, run: Run) -> dict[str, Mapping[str, float] | None]:
    """As export and benchmark measured it where this is their very file; else on val, here."""
    own = Path(SHIPPED) / path.name
    if own.is_file() and run.lacks.keys().isdisjoint(MEASURED) and files.digest(own) == files.digest(path):
        benchmarked: Mapping[str, Any] = run.found("benchmark")
        found = benchmarked["files"][path.stem]
        test = {
            "accuracy": found["accuracy"],
            "low": found["accuracy_low"],
            "high": found["accuracy_high"],
            "pictures": benchmarked["pictures"],
        }
        return {"val": _share(round(run.found("export")[path.stem]["accuracy"] * len(val)), len(val)), "test": test}
    parts = np.array_split(np.arange(len(val)), math.ceil(len(val) / AT_ONCE))
    right = sum(int((model.probabilities(val.images[at]).argmax(axis=1) == val.labels[at]).sum()) for at in parts)
    return {"val": _share(right, len(val)), "test": None}


def _share(right: int, pictures: int) -> dict[str, float]:
    low, high = statistics.wilson(right, pictures, CONFIDENCE)
    return {"accuracy": right / pictures, "low": low, "high": high, "pictures": pictures}


def _commit() -> str:
    """Of the workspace, with a word where files that git knows differ from it."""
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
