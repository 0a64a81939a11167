"""A command that ends with whoever asked for it, even if that one is killed: nothing else frees a GPU.

    python -m flows.core.leash COMMAND ...

The process between reads a pipe that its starter holds and never writes to. When the pipe ends, everything in the
command's process group ends: asked first, killed after some seconds. Killing the process between kills the command.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil

PATIENCE = 10.0  # seconds from being asked to being killed
LOOK = 1.0  # seconds between two looks at who started this
AFTER = 5.0  # seconds in which the system takes away what was killed
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@contextmanager
def leashed(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], inherited: Sequence[int] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """Its output, both kinds in one stream; nothing of it is left when this ends."""
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, *command],
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=inherited,
    )
    threading.Thread(target=_clear_after, args=(process,), daemon=True).start()
    try:
        yield process
    finally:
        for stream in filter(None, (process.stdin, process.stdout)):
            stream.close()
        try:
            process.wait(PATIENCE + AFTER)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _clear_after(process: "subprocess.Popen[str]") -> None:
    """The process between may be killed, too; what it started is in its session."""
    process.wait()
    for pid in psutil.pids():
        with suppress(ProcessLookupError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)


def main(command: Sequence[str]) -> NoReturn:
    signal.signal(signal.SIGTERM, _leave)
    if sys.platform == "linux":  # orphans of the command come here, where they are counted and taken away
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    starter = os.getpid()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        close_fds=False,  # a lock that is handed down is held to the end
        preexec_fn=lambda: _die_with(starter),
    )
    threading.Thread(target=_watch, args=(child.pid,), daemon=True).start()
    try:
        status = child.wait()
    finally:
        end(child.pid)
    sys.exit(status if status >= 0 else 128 - status)


def end(group: int) -> None:
    """Every process of a group, by asking and then by force."""
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, AFTER)):
        deadline = time.monotonic() + patience
        try:
            os.killpg(group, number)
            while time.monotonic() < deadline:
                with suppress(ChildProcessError):
                    os.waitpid(-group, os.WNOHANG)
                os.killpg(group, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return


def end_with_starter() -> None:
    """This process is asked to end when who started it is gone, to whom it can say nothing any more."""
    threading.Thread(target=_miss, args=(os.getppid(),), daemon=True).start()


def _miss(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(LOOK)
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)  # a broken pipe would end it before it has told anybody
    os.kill(os.getpid(), signal.SIGTERM)


def _watch(group: int) -> None:
    while os.read(0, 1):
        pass
    end(group)


def _die_with(starter: int) -> None:
    """Runs in the new process, before the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != starter:
            os._exit(1)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main(sys.argv[1:])
