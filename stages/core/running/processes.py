"""What a stage asks of the operating system about processes."""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from multiprocessing.process import BaseProcess

import psutil

from stages.core.running import team

PATIENCE = 10.0  # seconds for a last checkpoint; a process deep in a library does not hear that it is to end
SHELLS = frozenset({"sh", "ash", "bash", "dash", "fish", "ksh", "zsh"})


def end_with_starter() -> None:
    """When the process that started this one is killed, this one ends too: left alone, it would hold the GPU.

    DVC starts a stage by a shell, which some shells become and others wait beside: the first that is no shell counts.
    """
    above = psutil.Process().parents()[1 if team.member().size > 1 else 0 :]  # torchrun ends with those it started
    starter = next((parent for parent in above if parent.name() not in SHELLS), None)
    if starter is not None:
        threading.Thread(target=_end_after, args=(starter,), daemon=True).start()


def _end_after(starter: psutil.Process) -> None:
    starter.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


def end_with_pool() -> None:
    """A pool whose owner was killed tells its processes nothing: without this they would wait forever."""
    owner = multiprocessing.parent_process()
    if owner is not None:
        threading.Thread(target=_follow, args=(owner,), daemon=True).start()


def _follow(owner: BaseProcess) -> None:
    owner.join()
    os._exit(1)


def peak_memory() -> int:
    """Of this process, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cores() -> int:
    """That this process may use, which in a container can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
