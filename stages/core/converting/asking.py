"""A maker, asked in a fresh process of its environment."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.converting import environments, table
from stages.core.converting.makers import protocol
from stages.core.running import files, sources
from stages.core.running.errors import Refusal


class Unable(Refusal):
    """A converter has no form for this network; others may have one."""


def logits(file: Path, images: np.ndarray) -> np.ndarray:
    """What a converted file answers to pictures (uint8 [n, H, W, 3]): float32 [n, classes].

    The card beside the file says who made it; whoever made it runs it.
    """
    maker = card(file)["maker"]
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "images.npy"
        np.save(stored, images)
        return answers(maker, file, stored)[0]


def card(file: Path) -> dict[str, Any]:
    path = file.with_suffix(".json")
    try:
        told = files.read_json(path)
        if isinstance(told, dict) and told.get("maker") in table.MAKERS:
            return told
    except (OSError, ValueError):
        pass
    raise Refusal(f"{file} has no card {path.name} beside it that says what runs it: `dvc repro convert` writes both")


def answers(maker: str, file: Path, images: Path, *, timed: bool = False) -> tuple[np.ndarray, list[float]]:
    """With the milliseconds of single calls, if it is to be timed; pictures are read from where they are stored."""
    with tempfile.TemporaryDirectory() as folder:
        found, times = Path(folder) / "logits.npy", Path(folder) / "times.json"
        ask(maker, "answer", file.resolve(), images.resolve(), found, *([times] if timed else []))
        return np.load(found), files.read_json(times) if timed else []


def describe(maker: str, file: Path) -> dict[str, Any]:
    return json.loads(ask(maker, "describe", file.resolve()))


def convert(maker: str, handed: Path, stem: Path, kind: str) -> None:
    ask(maker, "convert", handed.resolve(), stem.resolve(), kind, unable=Unable)


def ask(maker: str, verb: str, *words: str | Path, unable: type[Refusal] = Refusal) -> str:
    """One process from start to end; what it says on standard output. `unable` is what is raised if it refuses by
    itself; what breaks it, as a full disk does, says nothing of what it was asked."""
    python = interpreter(maker)
    command: Sequence[str] = [str(python), "-m", table.MAKERS[maker].module, verb, *map(str, words)]
    with tempfile.TemporaryDirectory() as nowhere:
        done = subprocess.run(command, capture_output=True, text=True, cwd=nowhere, env=surroundings(), check=False)
    if done.returncode:
        raise _failure(maker, verb, done, unable)
    return done.stdout


def _failure(maker: str, verb: str, done: subprocess.CompletedProcess[str], unable: type[Refusal]) -> Refusal:
    """A process that was ended from outside has said nothing of it; its last line is of something else."""
    if done.returncode < 0:
        return Refusal(f"{maker} cannot {verb}: {signal.Signals(-done.returncode).name} ended its process")
    said = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
    why = environments.shortened(said[-1])
    if table.MAKERS[maker].environment and why.startswith("ModuleNotFoundError"):
        return Refusal(
            f"{maker} cannot {verb}: {why}; remove {environments.folder(maker)} to have its converter built anew"
        )
    return (unable if done.returncode == protocol.REFUSED else Refusal)(f"{maker} cannot {verb}: {why}")


def prepare(maker: str) -> None:
    """See to it that the maker can be asked: its environment is built if it is not here."""
    if table.MAKERS[maker].environment:
        environments.build(maker)


def interpreter(maker: str) -> Path:
    if not table.MAKERS[maker].environment:
        return Path(sys.executable)
    found = environments.python(maker)
    if found is None:
        raise Refusal(f"the converter {maker} is not here: `lightvision targets --build {maker}` builds it")
    return found


def surroundings() -> dict[str, str]:
    """One thread; the project's root for the maker's own module, and nothing else of this process's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": str(sources.ROOT), "OMP_NUM_THREADS": "1"}
