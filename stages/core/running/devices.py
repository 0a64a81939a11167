"""One process at a time on a device: whoever has lost its starter may still be at work on it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from stages.core.running.errors import Busy

LOCK = "LIGHTVISION_DEVICE_LOCK"
PATIENCE = 600.0  # seconds


@contextmanager
def held() -> Iterator[None]:
    """The device is this process' own; where the environment names no lock, nobody else is to be expected."""
    path = os.environ.get(LOCK)
    if not path:
        yield
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"the device is in use by a process that holds {path}: waiting for its end", file=sys.stderr, flush=True)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            raise Busy(f"the device is in use after {PATIENCE:.0f} s: end the process that holds {path}") from None
    try:
        yield
    finally:
        lock.release()
