"""A project of git and DVC whose stages take no time, and whose results follow from params.yaml by formula.

    python -m tests.made_project export --shipped models/shipped ...

is a stage of it, run by the true command, with a journal for MLflow. The share that is pruned makes the file smaller and
costs WRONG test pictures; `benchmark.rounds` are its microseconds.
"""

import csv
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightvision import experiments
from stages.core import answers, params, statistics
from stages.core.datasets import storage
from stages.core.running import command, files
from stages.core.running.command import Output
from stages.core.running.journal import Run
from stages.core.running.sources import ROOT

PICTURES, WRONG, CLASSES = 400, 80, ("bars", "blobs")
TEACHER = 4_000_000
PIPELINE = f"""
stages:
  export:
    cmd: {sys.executable} -m tests.made_project export --shipped models/shipped --metrics metrics/export.json
    params: [prune, seed]
    outs: [models/shipped]
    metrics: [metrics/export.json: {{cache: false}}]
  evaluate:
    cmd: {sys.executable} -m tests.made_project evaluate --answers data/answers --metrics metrics/evaluate.json
    params: [prepare, prune, evaluate, seed]
    outs: [data/answers]
    metrics: [metrics/evaluate.json: {{cache: false}}]
  benchmark:
    cmd: >-
      {sys.executable} -m tests.made_project benchmark --shipped models/shipped --answers data/file_answers
      --metrics metrics/benchmark.json
    params: [prune, benchmark, seed]
    deps: [models/shipped]
    outs: [data/file_answers]
    metrics: [metrics/benchmark.json: {{cache: false}}]
"""


def sizes(prune: params.Prune) -> dict[str, int]:
    return {"teacher": TEACHER, "quantized": round(TEACHER * (1 - prune.sparsity) / 4)}


def wrong(prune: params.Prune) -> dict[str, int]:
    """Test pictures that a network gets wrong: the first so many."""
    return {"teacher": 4, "quantized": 4 + round(WRONG * prune.sparsity)}


def export(run: Run, prune: params.Prune, seed: int, shipped: Output, metrics: Output) -> None:
    shipped.mkdir()
    for name in sizes(prune):
        (shipped / f"{name}.onnx").write_text(f"{name} {prune.sparsity} {seed}")
    run.metrics(
        metrics,
        {name: {"bytes": size, "accuracy": 1 - wrong(prune)[name] / PICTURES} for name, size in sizes(prune).items()},
    )


def evaluate(
    run: Run,
    prepare: params.Prepare,
    prune: params.Prune,
    evaluate: params.Evaluate,
    seed: int,
    answers: Output,
    metrics: Output,
) -> None:
    run.metrics(metrics, {"pictures": PICTURES, "test": keep(answers, wrong(prune), seed)})


def benchmark(
    run: Run,
    prune: params.Prune,
    benchmark: params.Benchmark,
    seed: int,
    shipped: command.Input,
    answers: Output,
    metrics: Output,
) -> None:
    keep(answers, wrong(prune), seed)
    found = {name: measured(size, wrong(prune)[name], benchmark) for name, size in sizes(prune).items()}
    machine = {"cpu": "Made-up", "cores": 2, "onnxruntime": "1"}
    run.metrics(metrics, {"machine": machine, "pictures": PICTURES, "files": found})


def measured(size: int, errors: int, benchmark: params.Benchmark) -> dict[str, Any]:
    low, high = statistics.wilson(PICTURES - errors, PICTURES, 0.95)
    median = benchmark.rounds * size / TEACHER
    facts = {"bytes": size, "macs": size * 10, "joules": None, "accuracy": 1 - errors / PICTURES}
    time = {"median": median, "low": median - 0.001, "high": median + 0.001}
    return facts | {"accuracy_low": low, "accuracy_high": high, "one_thread": time}


def keep(folder: Path, errors: dict[str, int], seed: int) -> str:
    """Other seeds are other pictures."""
    labels = np.arange(PICTURES) % len(CLASSES)
    probabilities: dict[str, np.ndarray] = {}
    for name, count in errors.items():
        chances = np.eye(len(CLASSES))[labels]
        chances[:count] = 1 - chances[:count]
        probabilities[name] = chances
    roll = folder.parent / "roll"
    roll.mkdir(exist_ok=True)
    with (roll / "pictures.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["name", "content"], *([f"{n}.png", f"{n}-{seed}"] for n in range(PICTURES))])
    facts = storage.Facts("made", CLASSES, 8, (0.5,) * 3, (0.25,) * 3, "crop")
    split = storage.Split(facts, np.zeros((PICTURES, 8, 8, 3), np.uint8), labels, roll)
    answers.write(folder, split, probabilities)
    shutil.rmtree(roll)
    return answers.read(folder).test


def build(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Once run and committed; the folder is where one works."""
    patch.chdir(folder)
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setattr(experiments, "locked", experiments.locked.__wrapped__)
    files.write_text(Path("dvc.yaml"), PIPELINE)
    files.write_text(Path(".gitignore"), "/models\n/data\n/.lightvision\n/mlflow.db\n/mlruns\n__pycache__\n")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    shell("git", "init", "-q")
    shell("git", "config", "user.email", "a@b.c")
    shell("git", "config", "user.name", "n")
    dvc("init", "-q")
    dvc("repro", "-q")
    commit()
    return folder


def commit() -> None:
    shell("git", "add", "-A")
    shell("git", "commit", "-qm", "made")


def experiment(name: str, *settings: str) -> None:
    words = [word for setting in settings for word in ("-S", setting)]
    dvc("exp", "run", "-q", "-n", name, *words)
    shell("git", "checkout", "-q", ".")
    dvc("checkout", "-q")


def dvc(*words: str) -> None:
    shell(sys.executable, "-m", "dvc", *words)


def shell(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


if __name__ == "__main__":
    stage = types.ModuleType("made")
    stage.main = globals()[sys.argv[1]]  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules[f"stages.{sys.argv[1]}"] = stage
    command.run()
