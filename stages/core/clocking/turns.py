"""Files against each other, in rounds: in each one every file in turn, in a process of its own, in an order drawn anew.

So a round differs from the next in all in which one start of a program differs from another, and whatever slows the
machine slows them all. One process runs at a time, and nothing of it is left when the next one starts.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, cast

import numpy as np

from stages.core import params
from stages.core.clocking import worker
from stages.core.clocking.meters import Meter
from stages.core.clocking.tasks import BEGIN, END, GO, REFUSED, Cell, Task, Told
from stages.core.running import progress, sources
from stages.core.running.errors import Refusal

WORKER = (sys.executable, "-m", worker.__name__)
TRIED = 5  # calls by which a file's pace is known
FEWEST = 3


@dataclass(frozen=True)
class Measured:
    """A number, or for each cell a row of calls, for each round; joules are those of a picture."""

    load: np.ndarray
    peak_bytes: np.ndarray
    over_runtime_bytes: np.ndarray
    calls: Mapping[Cell, np.ndarray]
    joules: np.ndarray


def measure(
    paths: Mapping[str, Path],
    pictures: np.ndarray,
    cells: Sequence[Cell],
    settings: params.Benchmark,
    meter: Meter | None = None,
) -> dict[str, Measured]:
    """Each file runs once before it counts: to see that it answers, and at what pace, and to have it off the disk."""
    at = cells.index(meter.cell) if meter else None
    told: dict[str, list[tuple[Told, float]]] = {name: [] for name in paths}
    tasks: dict[str, Task] = {}
    with _stored(pictures, max(cell.batch for cell in cells)) as stored, progress.bars() as bars:
        bar = bars.add_task("latency", total=len(paths) * (settings.rounds + 1), facts="")
        for name, path in paths.items():
            trial = Task(str(path.resolve()), str(stored), cells, [TRIED] * len(cells), None)
            tasks[name] = replace(trial, calls=_how_many(ask(trial, None)[0], settings), metered=at)
            bars.advance(bar)
        for order in orders(list(paths), settings.rounds):
            for name in order:
                told[name].append(ask(tasks[name], meter))
                bars.advance(bar)
    return {name: _gathered(tasks[name], found) for name, found in told.items()}


def orders(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """Nobody comes after the same one each time."""
    generator = np.random.default_rng(0)
    return (generator.permutation(names).tolist() for _ in range(rounds))


def ask(task: Task, meter: Meter | None) -> tuple[Told, float]:
    """One process from start to end, and the joules that went by in its metered cell."""
    command, pipe = [*WORKER, json.dumps(asdict(task))], subprocess.PIPE
    said, read = "", {BEGIN: 0.0, END: 0.0}
    with tempfile.TemporaryFile("w+") as errors:
        started = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, cwd=sources.ROOT)
        with suppress(BrokenPipeError), started, _killed_with_us(started):  # how it ended is told by its status
            for line in cast(IO[str], started.stdout):
                said = line.strip()
                if meter and said in read:
                    read[said] = meter.joules()
                    print(GO, file=started.stdin, flush=True)
        errors.seek(0)
        if started.returncode:
            raise Refusal(_problem(task.file, started.returncode, errors.read()))
    return Told(**json.loads(said)), read[END] - read[BEGIN]


@contextmanager
def _killed_with_us(started: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        started.kill()
        raise


def _problem(file: str, status: int, errors: str) -> str:
    if status == REFUSED:
        return errors
    if status < 0:
        why = f"was killed by {signal.Signals(-status).name}"
    else:
        why = f"ended with {(errors.strip().splitlines() or [f'status {status}'])[-1]}"
    return f"{file} cannot be timed: its process {why}"


def _how_many(told: Told, settings: params.Benchmark) -> list[int]:
    """Calls a round for each cell, so that all of a file's calls that count together take the wanted time."""
    seconds = settings.seconds_per_file / settings.rounds / len(told.calls)
    return [max(FEWEST, int(seconds / (float(np.median(calls)) / 1e3))) for calls in told.calls]


def _gathered(task: Task, told: Sequence[tuple[Told, float]]) -> Measured:
    """A counter that began anew in a round, or did not move, makes that one round no number of joules."""
    pictures = 1 if task.metered is None else task.calls[task.metered] * task.cells[task.metered].batch
    joules = np.array([used for _, used in told if used > 0]) / pictures
    return Measured(
        load=np.array([one.load for one, _ in told]),
        peak_bytes=np.array([one.peak_bytes for one, _ in told]),
        over_runtime_bytes=np.array([one.over_runtime_bytes for one, _ in told]),
        calls={cell: np.array([one.calls[at] for one, _ in told]) for at, cell in enumerate(task.cells)},
        joules=joules,
    )


@contextmanager
def _stored(pictures: np.ndarray, most: int) -> Iterator[Path]:
    """Where a process of its own finds them; as many as are wanted at once, some of them twice if there are fewer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npy"
        np.save(path, np.resize(pictures, (most, *pictures.shape[1:])))
        yield path
