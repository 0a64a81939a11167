"""A process that times one file and ends; what it left in memory, in caches and on the heap ends with it.

python -m stages.core.clocking.worker TASK tells on standard output. A meter is read by who started it, at the words
begin and end, so that nothing of the meter runs in here.
"""

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession

from stages.core.clocking.tasks import BEGIN, END, REFUSED, Cell, Task, Told, Way
from stages.core.running.errors import Refusal
from stages.core.shipping import sessions

WARM_UP = 5  # calls at least, and a fifth of those that count


def work(task: Task) -> Told:
    pictures = np.load(task.pictures)
    before, began = peak(), time.perf_counter_ns()
    way = task.cells[0].way
    session = _open(task, way)
    load, after = (time.perf_counter_ns() - began) / 1e6, 0
    calls: list[list[float]] = []
    for number, (cell, wanted) in enumerate(zip(task.cells, task.calls, strict=True)):
        if cell.way != way:
            way = cell.way
            session = _open(task, way)
        batch = np.ascontiguousarray(pictures[: cell.batch])
        _numbers(task.file, cell, session, batch)
        sessions.clock(session, batch, max(WARM_UP, wanted // 5))
        if number == task.metered:
            _wait(BEGIN)
        calls.append(sessions.clock(session, batch, wanted).tolist())
        if number == task.metered:
            _wait(END)
        after = after or peak()
    return Told(load, after, after - before, calls)


def peak() -> int:
    """Bytes that this process ever held; Linux alone forgets those of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _open(task: Task, way: Way) -> InferenceSession:
    return sessions.session(Path(task.file), way.threads, way.providers)


def _numbers(file: str, cell: Cell, session: InferenceSession, batch: np.ndarray) -> None:
    [answers] = session.run(None, {"images": batch})
    if not np.isfinite(np.asarray(answers)).all():
        raise Refusal(f"{file} answers what is no number to {cell.batch} pictures at once, {cell.way.name}")


def _wait(word: str) -> None:
    print(word, flush=True)
    sys.stdin.readline()


def _understood(text: str) -> Task:
    told = json.loads(text)
    return Task(**told | {"cells": [Cell(Way(**cell["way"]), cell["batch"]) for cell in told["cells"]]})


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(work(_understood(sys.argv[1])))))
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(REFUSED)
