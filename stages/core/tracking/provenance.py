"""What only a stage's own folder can tell, written into its journal's folder when it starts.

A stage opens nothing that it does not declare, and its folder may be a clone that is gone before MLflow answers. So
each forwarder that is started, and a stage starts one, looks first and asks afterwards whether it is to send anything.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML, YAMLError

from stages.core import params
from stages.core.running import files, pipeline, sources
from stages.core.running.errors import Refusal
from stages.core.tracking import events
from stages.core.tracking.events import Start

FILE = "provenance.json"
DATASET = "split.json"  # a folder with this index is data, which DVC keeps


class Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Read(Fact):
    """One input: DVC's digest of it, the stage that made it, and if it is a model the digests of those it came from."""

    md5: str = ""
    maker: str = ""
    is_data: bool = False
    parents: dict[str, str] | None = None


class Surroundings(Fact):
    """Keys of stages upstream are empty where the files have changed since the stage began; `lock` is of dvc.lock."""

    lock: str = ""
    upstream: dict[str, str] = {}
    inputs: dict[str, Read] = {}


def witness(home: Path) -> None:
    """For each journal that has no such file yet, and whose stage runs the very code that reads this."""
    with FileLock(home / "witness.lock"):
        for journal in sorted((home / "runs").glob("*-*/journal.jsonl")):
            target = journal.with_name(FILE)
            start = None if target.exists() else _start(journal)
            if start and _is_ours(Path(start.folder)):
                _write(target, look(start).model_dump_json())


def _write(target: Path, text: str) -> None:
    """Not where the journal was sent and cleared away meanwhile: its folder would be there again."""
    partial = target.with_name(f"{FILE}.partial")
    with contextlib.suppress(FileNotFoundError):
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)


def read(journal: Path) -> Surroundings:
    path = journal / FILE
    return Surroundings.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else Surroundings()


def look(start: Start) -> Surroundings:
    folder = Path(start.folder)
    with contextlib.chdir(folder):
        stages = pipeline.read()
        makers = {out: stage.name for stage in stages.values() for out in stage.outs}
        lock = Path("dvc.lock")
        return Surroundings(
            lock=files.digest(lock) if lock.is_file() else "",
            upstream=_upstream(start, stages),
            inputs={
                name: Read(
                    md5=_recorded(lock, one.path),
                    maker=makers.get(one.path, ""),
                    is_data=(Path(one.path) / DATASET).is_file(),
                    parents=_parents(Path(one.path)),
                )
                for name, one in start.inputs.items()
                if Path(one.path).exists() and files.digest(Path(one.path)) == one.digest
            },
        )


def _start(journal: Path) -> Start | None:
    with journal.open("rb") as stream:
        try:
            first = events.parse(stream.readline())
        except ValueError:
            return None
    return first if isinstance(first, Start) else None


def _is_ours(folder: Path) -> bool:
    """Clones of other commits share a home, and keys are made of code: each is witnessed by its own."""
    return (folder / "dvc.yaml").is_file() and (folder == sources.ROOT or not (folder / "stages" / "core").is_dir())


def _upstream(start: Start, stages: dict[str, pipeline.Stage]) -> dict[str, str]:
    before = pipeline.upstream(start.stage, stages)
    unknown = {stage.name: "" for stage in before}
    if pipeline.state(stages) != start.pipeline or any(
        not Path(one.path).exists() or files.digest(Path(one.path)) != one.digest for one in start.inputs.values()
    ):
        return unknown
    try:
        return unknown | pipeline.keys(before, params.load(Path("params.yaml")))
    except (Refusal, OSError):
        return unknown


def _recorded(lock: Path, path: str) -> str:
    """DVC's digest, where what lies there has the size that dvc.lock tells of it."""
    try:
        ran: Mapping[str, Any] = (YAML(typ="safe").load(lock) or {}).get("stages", {}) if lock.is_file() else {}
    except YAMLError:
        return ""
    entries = [out for stage in ran.values() for out in stage.get("outs", []) if out["path"] == path]
    return entries[0].get("md5", "") if entries and entries[0].get("size") == _size(Path(path)) else ""


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _parents(path: Path) -> dict[str, str] | None:
    card = path / "model.json"
    return files.read_json(card).get("parents", {}) if card.is_file() else None
