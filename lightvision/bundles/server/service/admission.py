"""How many requests are at work at once; memory is bounded by it."""

from collections.abc import Iterator
from contextlib import contextmanager

from .problems import BUSY, Problem


class Admission:
    def __init__(self, most: int) -> None:
        self._most = most
        self.at_work = 0

    @property
    def room(self) -> bool:
        return self.at_work < self._most

    @contextmanager
    def one(self) -> Iterator[None]:
        """Before a byte of the body is read."""
        if not self.room:
            raise Problem(BUSY, f"{self.at_work} requests are at work already: come again")
        self.at_work += 1
        try:
            yield
        finally:
            self.at_work -= 1
