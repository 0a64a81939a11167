"""What a stage does, written down line by line as it happens.

The journal is the only thing a stage tells about itself: MLflow is fed from it by another process (forwarding.py), so
that no server, however broken, can slow or fail a stage. A stage that was killed finds its journal and its scratch
folder again under the same key and goes on in them.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from stages.core.running import files
from stages.core.running.errors import Busy

OF_DATA = ("split.json", "advice.json")  # which tell of data that is too much to keep again and again


def project_root(folder: Path) -> Path:
    """The folder a person works in; `dvc exp run --temp` and `--queue` work in copies below its .dvc/tmp."""
    parts = folder.resolve().parts
    for index in range(len(parts) - 1):
        if parts[index : index + 2] == (".dvc", "tmp"):
            return Path(*parts[:index])
    return folder.resolve()


def home() -> Path:
    """Resumable work and journals: outside every DVC output, since DVC removes those before a stage starts.

    A clone that is made for one job and then removed has them elsewhere, by LIGHTVISION_HOME.
    """
    elsewhere = os.environ.get("LIGHTVISION_HOME")
    return Path(elsewhere) if elsewhere else project_root(Path.cwd()) / ".lightvision"


class Run:
    """One execution of one stage, however often it was interrupted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock")
        self._versions: list[dict[str, Any]] = []
        self._path = folder / "journal.jsonl"
        self._steps = {(event["series"], event["step"]) for event in self._mend() if event["event"] == "step"}

    @classmethod
    def open(cls, stage: str, key: str) -> Self:
        """The unfinished run of this very work if there is one, else a new one."""
        name = f"{stage}-{key[:16]}"
        for folder in sorted((home() / "runs").glob(f"{name}-*")):
            if not _finished(folder / "journal.jsonl"):
                return cls(folder)._claim()
        return cls(home() / "runs" / f"{name}-{time.time_ns():x}")._claim()

    def _claim(self) -> Self:
        """One process for one piece of work: two would write the same checkpoint."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise Busy("another process is doing this very work: wait for it, or end it first") from None
        return self

    def start(self, facts: Mapping[str, Any]) -> None:
        self._write("start", **facts)

    def step(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """One point of a curve; a point that was told before the stage was killed is not told twice."""
        if (series, step) not in self._steps:
            self._steps.add((series, step))
            self._write("step", series=series, step=step, values=dict(values))

    def metrics(self, path: Path, content: Mapping[str, Any]) -> None:
        """A stage's result: the file that git keeps, and the same numbers for whoever follows the journal."""
        files.write_json(path, content)
        self._write("metrics", values=dict(_flat(content)))

    def tell(self, **facts: Any) -> None:
        """Anything else worth finding later: machine, durations, gates passed."""
        self._write("tags", values=facts)

    def keep(self, name: str, path: Path) -> None:
        """Hold on to an output as it is now, since its file may be replaced before it is sent; of data, the facts."""
        copy = self.folder / "artifacts" / name
        files.remove(copy)
        copy.parent.mkdir(parents=True, exist_ok=True)
        facts = [path / name for name in OF_DATA if (path / name).exists()]
        if facts:
            copy.mkdir()
            _link(facts[0], copy / facts[0].name)
        elif path.is_dir():
            shutil.copytree(path, copy, copy_function=_link)
        else:
            _link(path, copy)
        self._write("artifact", name=name)

    def register(self, artifact: str, file: str, model: str, **facts: Any) -> None:
        """A file that passed its gates becomes a version of a model, once the stage has finished."""
        self._versions.append({"artifact": artifact, "file": file, "model": model, **facts})

    def end(self, status: str, reason: str = "") -> None:
        """`finished`, `failed` or `killed`; only a finished stage gives up what it would resume from."""
        if status == "finished":
            files.remove(self.scratch)
            for version in self._versions:
                self._write("register", **version)
        self._write("end", status=status, reason=reason)
        self._lock.release()

    def _write(self, event: str, **content: Any) -> None:
        line = json.dumps({"event": event, "time": time.time(), **content}, default=str)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def _mend(self) -> list[dict[str, Any]]:
        """What was written before; the last line of a killed stage may be half a line, and is cut off."""
        if not self._path.exists():
            return []
        text = self._path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            os.truncate(self._path, len(whole.encode()))
        return [json.loads(line) for line in whole.splitlines()]


def _finished(journal: Path) -> bool:
    if not journal.exists():
        return False
    last = journal.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
    return '"event": "end"' in last and '"status": "finished"' in last


def _link(source: str | Path, target: str | Path) -> None:
    """Outputs are replaced, never written in place, so a hard link holds the old content at no cost."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    pairs: list[tuple[str, float]] = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)):
            pairs.append((prefix + name, float(value)))
    return pairs
