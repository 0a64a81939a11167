"""How far it is, on a terminal's error stream and nowhere else."""

import sys
import time

EVERY = 0.2  # seconds
WIPE = "\r\x1b[K"


class Progress:
    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._began = self._told = time.monotonic()
        self._seen = sys.stderr.isatty()
        self._there = False

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        if self._seen and now - self._told > EVERY:
            self._told, self._there = now, True
            rate = self._done / (now - self._began)
            left = (self._total - self._done) / rate
            line = f"{self._done:,} of {self._total:,} pictures, {rate:,.0f} a second, {_clock(left)} left"
            print(f"{WIPE}{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Before anything else is said."""
        if self._there:
            print(WIPE, end="", file=sys.stderr, flush=True)
            self._there = False


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
