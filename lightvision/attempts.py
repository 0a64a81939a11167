"""DVC's experiments one after the other, each in a folder of its own; what has finished stays, whatever comes after."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

from rich.progress import Progress, TaskID

from lightvision.points import Point
from stages.core.running import progress

REACHED = "Running stage '"  # DVC says it of each
PATIENCE = 10.0  # seconds in which an experiment that is told to end should have ended
DIGITS = 8  # of a digest in an experiment's name


def run(name: str, missing: Sequence[Point], targets: Sequence[str]) -> dict[str, str]:
    """Why points failed, by their digest; nothing for those that ran."""
    failed: dict[str, str] = {}
    with _ended_like_a_keyboard(), progress.bars() as bars:
        task = bars.add_task(f"{name}, experiments", total=len(missing), facts="")
        for point in missing:
            with tempfile.TemporaryFile("w+") as errors:
                if not _run(point, f"{name}-{point.digest[:DIGITS]}", targets, bars, task, errors):
                    errors.seek(0)
                    failed[point.digest] = reason(errors.read())
            bars.advance(task)
    return failed


def _run(point: Point, name: str, targets: Sequence[str], bars: Progress, task: TaskID, errors: IO[str]) -> bool:
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name]
    for assignment in point.sets:
        command += ["--set-param", assignment]
    where = ", ".join(filter(None, (point.row, point.key)))
    bars.update(task, facts=where)
    with subprocess.Popen(
        [*command, *targets],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,  # so that it hears once that it is to end, from here
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as child:
        try:
            for line in child.stdout or ():
                if line.startswith(REACHED):
                    bars.update(task, facts=f"{where}: {line.removeprefix(REACHED).partition(chr(39))[0]}")
            return child.wait() == 0
        except KeyboardInterrupt:
            _end(child)
            raise


def _end(child: "subprocess.Popen[str]") -> None:
    """As a keyboard would, which lets DVC tidy up; what a shell started in the background does not hear it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE)
            return


def reason(errors: str) -> str:
    """What the stage said, in one line; DVC's own word only where no stage said anything."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    dvc = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    before = next((number for number, line in enumerate(lines) if line.startswith("ERROR: ")), len(lines))
    said = lines[before - 1] if before else ""
    return said or (dvc[-1] if dvc else "it ended without a word")


@contextmanager
def _ended_like_a_keyboard() -> Iterator[None]:
    """Asked to end, it ends its experiment too, which would otherwise go on alone."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
