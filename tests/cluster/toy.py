"""A project of git and DVC for the cluster: results follow by formula, time passes as the test says.

    python -m tests.cluster.toy prune --teacher models/teacher ...

is a stage of it, run by the true command. Two files outside the project, and so outside every key, belong to the one
who watches: TOY_PACE says how long an epoch takes, TOY_LOG gets a line for each beginning, epoch and end.
"""

import hashlib
import json
import os
import platform
import random
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import params
from stages.core.running import command, files, progress
from stages.core.running.command import Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.running.sources import ROOT

if TYPE_CHECKING:
    from tests.cluster.hosts import Host

HELD, FAILS = 1e9, -1.0  # paces: until another one is told; the stage says no
BYTES = 200_000  # of an output
PIPELINE = """
stages:
  prepare:
    cmd: python -m tests.cluster.toy prepare --train data/train --metrics metrics/prepare.json
    params: [prepare, seed]
    deps: [stages/prepare.txt, stages/core]
    outs: [data/train]
    metrics: [metrics/prepare.json: {cache: false}]
  describe:
    cmd: python -m tests.cluster.toy describe --train data/train --card reports/data.html
    params: [augment, seed]
    deps: [stages/describe.txt, stages/core, data/train]
    outs: [reports/data.html]
    meta: {pool: cpu}
  train_teacher:
    cmd: >-
      python -m tests.cluster.toy train_teacher --train data/train --teacher models/teacher
      --metrics metrics/train_teacher.json --history metrics/curves/teacher.csv
    params: [train_teacher, seed]
    deps: [stages/train_teacher.txt, stages/core, data/train]
    outs: [models/teacher]
    metrics: [metrics/train_teacher.json: {cache: false}]
    plots: [metrics/curves/teacher.csv: {cache: false}]
  prune:
    cmd: >-
      python -m tests.cluster.toy prune --teacher models/teacher --pruned models/pruned
      --metrics metrics/prune.json --history metrics/curves/prune.csv
    params: [prune, seed]
    deps: [stages/prune.txt, stages/core, models/teacher]
    outs: [models/pruned]
    metrics: [metrics/prune.json: {cache: false}]
    plots: [metrics/curves/prune.csv: {cache: false}]
  evaluate:
    cmd: >-
      python -m tests.cluster.toy evaluate --teacher models/teacher --pruned models/pruned --curves metrics/curves
      --answers data/answers --metrics metrics/evaluate.json
    params: [evaluate, seed]
    deps: [stages/evaluate.txt, stages/core, models/teacher, models/pruned, metrics/curves]
    outs: [data/answers]
    metrics: [metrics/evaluate.json: {cache: false}]
  benchmark:
    cmd: >-
      python -m tests.cluster.toy benchmark --teacher models/teacher --pruned models/pruned
      --metrics metrics/benchmark.json
    params: [benchmark, seed]
    deps: [stages/benchmark.txt, stages/core, models/teacher, models/pruned]
    metrics: [metrics/benchmark.json: {cache: false}]
"""
STAGES = ("prepare", "describe", "train_teacher", "prune", "evaluate", "benchmark")


def prepare(run: Run, prepare: params.Prepare, seed: int, train: Output, metrics: Output) -> None:
    drawn = work(run, "prepare", 1, prepare, seed)
    fill(train, drawn)
    run.metrics(metrics, {"pictures": drawn % 1000})


def describe(run: Run, augment: params.Augment, seed: int, train: Input, card: Output) -> None:
    files.write_text(card, f"<p>{work(run, 'describe', 1, augment, seed, train)}</p>\n")


def train_teacher(
    run: Run,
    train_teacher: params.TrainTeacher,
    seed: int,
    train: Input,
    teacher: Output,
    metrics: Output,
    history: Output,
) -> None:
    drawn = work(run, "train_teacher", train_teacher.training.epochs, train_teacher, seed, train)
    fill(teacher, drawn)
    curve(history, drawn, train_teacher.training.epochs)
    run.metrics(metrics, {"val_accuracy": share(drawn)})


def prune(
    run: Run, prune: params.Prune, seed: int, teacher: Input, pruned: Output, metrics: Output, history: Output
) -> None:
    drawn = work(run, "prune", prune.training.epochs, prune, seed, teacher)
    fill(pruned, drawn)
    curve(history, drawn, prune.training.epochs)
    run.metrics(metrics, {"val_accuracy": share(drawn), "sparsity": prune.sparsity})


def evaluate(
    run: Run,
    evaluate: params.Evaluate,
    seed: int,
    teacher: Input,
    pruned: Input,
    curves: Input,
    answers: Output,
    metrics: Output,
) -> None:
    drawn = work(run, "evaluate", 1, evaluate, seed, teacher, pruned, curves)
    fill(answers, drawn)
    names = ("teacher", "pruned")
    run.metrics(metrics, {name: {"accuracy": share(drawn + place)} for place, name in enumerate(names)})


def benchmark(run: Run, benchmark: params.Benchmark, seed: int, teacher: Input, pruned: Input, metrics: Output) -> None:
    drawn = work(run, "benchmark", 1, benchmark, seed, teacher, pruned)
    names = ("teacher", "pruned")
    found = {
        name: {"bytes": 1000 + drawn % 1000 - place, "one_thread": {"median": share(drawn)}}
        for place, name in enumerate(names)
    }
    run.metrics(metrics, {"files": found})


def work(run: Run, stage: str, epochs: int, settings: Any, seed: int, *inputs: Path) -> int:
    """A number that everything of this stage has a part in, after so many epochs; a killed one goes on."""
    told = [settings.model_dump_json(), str(seed), *map(files.digest, [Path(f"stages/{stage}.txt"), *inputs])]
    state, checkpoint = hashlib.sha256(" ".join(told).encode()).hexdigest(), run.scratch / "checkpoint.json"
    first = 0
    if checkpoint.exists():
        first, state = json.loads(checkpoint.read_text())
    note("begin", stage, run, epoch=first)
    for epoch in range(first, epochs):
        pass_time(stage)
        state = hashlib.sha256(f"{state} {epoch}".encode()).hexdigest()
        files.write_json(checkpoint, [epoch + 1, state])
        run.step(stage, epoch + 1, {"loss": share(int(state, 16))})
        progress.note(f"{stage}: epoch {epoch + 1}/{epochs}, loss {share(int(state, 16)):.4f}")
        note("epoch", stage, run, epoch=epoch + 1)
    note("end", stage, run, epoch=epochs)
    return int(state[:12], 16)


def fill(folder: Path, drawn: int) -> None:
    folder.mkdir()
    (folder / "content.bin").write_bytes(random.Random(drawn).randbytes(BYTES))  # noqa: S311
    (folder / "facts.json").write_text(json.dumps({"drawn": drawn}))


def curve(path: Path, drawn: int, epochs: int) -> None:
    rows = [f"{epoch},{share(drawn + epoch)}" for epoch in range(epochs)]
    files.write_text(path, "\n".join(["epoch,val_accuracy", *rows, ""]))


def share(drawn: int) -> float:
    return drawn % 10007 / 10007


def pass_time(stage: str) -> None:
    began = time.monotonic()
    while time.monotonic() - began < pace(stage):
        time.sleep(0.02)


def pace(stage: str) -> float:
    """Seconds an epoch takes: of this stage on this host, of this stage, of all."""
    path = Path(os.environ.get("TOY_PACE", ""))
    told = json.loads(path.read_text()) if path.is_file() else {}
    found = next((told[name] for name in (f"{stage}@{platform.node()}", stage, "*") if name in told), 0.0)
    if found == FAILS:
        raise Refusal("was told to fail")
    return found


def note(event: str, stage: str, run: Run, epoch: int) -> None:
    line = {
        "event": event,
        "time": time.time(),
        "host": platform.node(),
        "pid": os.getpid(),
        "stage": stage,
        "journal": run.folder.name,
        "point": os.environ.get("DVC_EXP_NAME", ""),
        "device": os.environ.get("LIGHTVISION_DEVICE_LOCK", ""),
        "epoch": epoch,
    }
    if path := os.environ.get("TOY_LOG"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.close(descriptor)


@dataclass(frozen=True)
class Execution:
    """One process that ran a stage, as far as it came."""

    stage: str
    host: str
    pid: int
    journal: str
    point: str
    device: str
    epochs: tuple[int, ...]
    began: float
    seen: float
    ended: bool


@dataclass(frozen=True)
class Watch:
    """The two files, from outside."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"TOY_LOG": str(self.folder / "log.jsonl"), "TOY_PACE": str(self.folder / "pace.json")}

    def pace(self, seconds: float = 0.0, **stages: float) -> None:
        """From now on, for epochs under way too."""
        files.write_json(self.folder / "pace.json", {"*": seconds, **stages})

    def forget(self) -> None:
        (self.folder / "log.jsonl").unlink(missing_ok=True)

    def lines(self) -> list[dict[str, Any]]:
        path = self.folder / "log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def executions(self, stage: str = "") -> list[Execution]:
        """In the order in which they began."""
        found: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
        for line in self.lines():
            found.setdefault((line["host"], line["pid"], line["journal"]), []).append(line)
        executions = [_execution(lines) for lines in found.values()]
        return [execution for execution in executions if stage in ("", execution.stage)]


def _execution(lines: Sequence[Mapping[str, Any]]) -> Execution:
    first, last = lines[0], lines[-1]
    return Execution(
        *(first[name] for name in ("stage", "host", "pid", "journal", "point", "device")),
        epochs=tuple(line["epoch"] for line in lines if line["event"] == "epoch"),
        began=first["time"],
        seen=last["time"],
        ended=last["event"] == "end",
    )


def contents() -> Iterator[tuple[str, str]]:
    """The files of the project, as somebody would commit them."""
    yield "dvc.yaml", PIPELINE
    yield "params.yaml", (ROOT / "params.yaml").read_text()
    yield ".gitignore", (ROOT / ".gitignore").read_text()
    yield ".dvcignore", ""
    yield ".dvc/.gitignore", "/config.local\n/tmp\n/cache\n"
    yield "stages/core/one.txt", "shared by all\n"
    yield "stages/core/two.txt", "as well\n"
    for name in STAGES:
        yield f"stages/{name}.txt", f"the code of {name}\n"


def begin(person: "Host", git: str, remote: str) -> Path:
    """Committed and pushed by a person, with nothing run yet."""
    folder = person.home / "project"
    person.run("git", "clone", "-q", git, str(folder))
    for name, text in contents():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / name, text)
    config = "[core]\n    analytics = false\n    autostage = false\n    remote = storage\n['remote \"storage\"']\n"
    files.write_text(folder / ".dvc" / "config", f"{config}    url = {remote}\n")
    person.run("git", "add", "-A", cwd=folder)
    person.run("git", "commit", "-qm", "A project", cwd=folder)
    person.run("git", "push", "-q", "origin", "HEAD:main", cwd=folder)
    return folder


if __name__ == "__main__":
    stage = types.ModuleType("toy")
    stage.main = globals()[sys.argv[1]]  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules[f"stages.{sys.argv[1]}"] = stage
    command.run()
