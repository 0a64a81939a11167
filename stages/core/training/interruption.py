"""Asked to end, by SIGTERM or Ctrl-C, long work ends at its next good moment; asked again, at once."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    def __init__(self) -> None:
        self._asked = 0

    def __bool__(self) -> bool:
        return self._asked > 0

    def obey(self) -> NoReturn:
        """As a shell expects of a process that a signal ended."""
        if self._asked == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + self._asked)

    def note(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            self.obey()
        self._asked = number


@contextmanager
def noticed() -> Iterator[Interruption]:
    """Only the main thread may handle signals; elsewhere nobody asks."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = [signal.signal(number, interruption.note) for number in SIGNALS]
    try:
        yield interruption
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
