"""What a timed process is told to do and what it tells; nothing is imported that it would have to load."""

from collections.abc import Sequence
from dataclasses import dataclass

BEGIN, END, GO = "begin", "end", "go"
REFUSED = 3  # how a process ends that says in one line what is wrong


@dataclass(frozen=True)
class Way:
    """How a file is run: `threads` 0 takes every core."""

    name: str
    threads: int
    providers: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One way with so many pictures at once."""

    way: Way
    batch: int


@dataclass(frozen=True)
class Task:
    """The first cell is that of loading and of memory. `metered`, one cell or none, waits for a meter to be read."""

    file: str
    pictures: str
    cells: Sequence[Cell]
    calls: Sequence[int]
    metered: int | None


@dataclass(frozen=True)
class Told:
    """Milliseconds, and bytes at the most; `calls` for each cell of the task."""

    load: float
    peak_bytes: int
    over_runtime_bytes: int
    calls: list[list[float]]
