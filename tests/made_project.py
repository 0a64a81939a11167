"""A project of git and DVC whose stages take no time, and whose results follow from params.yaml by formula.

    python -m tests.made_project export --shipped models/shipped ...

is a stage of it, run by the true command, with a journal for MLflow. The share that is pruned makes the file
smaller and costs WRONG test pictures; the teacher takes `benchmark.rounds` milliseconds.
"""

import csv
import hashlib
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from lightvision import experiments
from stages.core import answers, params, statistics
from stages.core.datasets import storage
from stages.core.running import command, files, pipeline
from stages.core.running.command import Output
from stages.core.running.journal import Run
from stages.core.running.sources import ROOT

PICTURES, WRONG, CLASSES = 400, 80, ("bars", "blobs")
TEACHER = 4_000_000
MACHINE = {"cpu": "Made-up", "cores": 2, "onnxruntime": "1"}
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
    took = benchmark.rounds + seed / 1000
    found = {name: measured(size, wrong(prune)[name], took) for name, size in sizes(prune).items()}
    run.metrics(metrics, {"machine": MACHINE, "pictures": PICTURES, "files": found})


def measured(size: int, errors: int, took: float) -> dict[str, Any]:
    low, high = statistics.wilson(PICTURES - errors, PICTURES, 0.95)
    median = took * size / TEACHER
    facts = {"bytes": size, "macs": size * 10, "joules": None, "accuracy": 1 - errors / PICTURES}
    time = {"median": median, "low": median - 0.001, "high": median + 0.001, "noisy": False}
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


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Where one works from now on."""
    patch.chdir(folder)
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setattr(experiments, "locked", experiments.locked.__wrapped__)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_EXP_NAME"):
        patch.delenv(name, raising=False)


def begin() -> None:
    files.write_text(Path("dvc.yaml"), PIPELINE)
    files.write_text(Path(".gitignore"), "/models\n/data\n/.lightvision\n/mlflow.db\n/mlruns\n/run\n")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    edit("rounds: ", "rounds: 30 #")
    shell("git", "init", "-q")
    shell("git", "config", "user.email", "a@b.c")
    shell("git", "config", "user.name", "n")


def build(folder: Path) -> Path:
    """By DVC, once run and committed."""
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        begin()
        dvc("init", "-q")
        dvc("repro", "-q")
        commit()
    return folder


def pretend(folder: Path) -> Path:
    """The same without DVC, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        begin()
        repro()
        commit()
    return folder


def repro() -> None:
    """What `dvc repro` would do, dvc.lock included."""
    settings, locked = params.load(Path("params.yaml")), {}
    raw = YAML(typ="safe").load(Path("params.yaml"))
    for name, stage in pipeline.read().items():
        for path in stage.outputs.values():
            files.remove(path)
            path.parent.mkdir(exist_ok=True)
        globals()[name](run=Run(Path("run")), **settings.pick(stage.params), **stage.inputs, **stage.outputs)
        locked[name] = {
            "cmd": stage.cmd,
            "params": {"params.yaml": {entry: raw[entry] for entry in stage.params}},
            "deps": [{"path": path, "md5": digest(Path(path))} for path in sorted(stage.deps)],
            "outs": [{"path": path, "md5": digest(Path(path))} for path in sorted(stage.outs)],
        }
    with Path("dvc.lock").open("w") as stream:
        YAML().dump({"schema": "2.0", "stages": locked}, stream)


def digest(path: Path) -> str:
    """As DVC's, of a file; of a folder it need only be its own."""
    content = path.read_bytes() if path.is_file() else files.digest(path).encode()
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def edit(before: str, after: str) -> None:
    text = Path("params.yaml").read_text()
    assert before in text
    Path("params.yaml").write_text(text.replace(before, after))


def pretend_experiment(name: str, before: str, after: str) -> None:
    baseline = output("git", "rev-parse", "HEAD")
    edit(before, after)
    repro()
    commit()
    shell("git", "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", "HEAD")
    shell("git", "reset", "-q", "--hard", baseline)
    repro()


def commit() -> None:
    shell("git", "add", "-A")
    shell("git", "commit", "-qm", "made", "--allow-empty")


def experiment(name: str, *settings: str) -> None:
    words = [word for setting in settings for word in ("-S", setting)]
    dvc("exp", "run", "-q", "-n", name, *words)
    shell("git", "checkout", "-q", ".")
    dvc("checkout", "-q")


def dvc(*words: str) -> None:
    shell(sys.executable, "-m", "dvc", *words)


def shell(*words: str) -> None:
    output(*words)


def output(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout.strip()


if __name__ == "__main__":
    stage = types.ModuleType("made")
    stage.main = globals()[sys.argv[1]]  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules[f"stages.{sys.argv[1]}"] = stage
    command.run()
