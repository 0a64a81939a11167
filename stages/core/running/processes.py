"""What a stage asks of the operating system about processes."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_parent() -> None:
    """When its parent is killed, Linux ends this process too: left alone, it would hold the GPU and the work."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_pool() -> None:
    """A pool whose owner was killed tells its processes nothing: without this they would wait forever."""
    owner = multiprocessing.parent_process()
    if owner is not None:
        threading.Thread(target=_follow, args=(owner,), daemon=True).start()


def _follow(owner: BaseProcess) -> None:
    owner.join()
    os._exit(1)


def cores() -> int:
    """That this process may use, which in a container can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
