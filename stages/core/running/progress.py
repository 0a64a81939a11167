"""Bars with an ETA on a terminal; plain lines, one a step at most, everywhere else."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")


def note(text: str) -> None:
    """One line for a person; it does not disturb a bar."""
    Console(file=sys.stdout, soft_wrap=True, highlight=False, markup=False).print(text)


@contextmanager
def bars() -> Iterator[Progress]:
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


def track(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """`total` is None where nobody knows it before the end."""
    with bars() as progress:
        task: TaskID = progress.add_task(description, total=total, facts="")
        for item in items:
            yield item
            progress.advance(task)


class Download:
    """A bar of bytes, in the form that pooch drives: it sets `total` once it knows."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self.total = 0

    def update(self, count: int) -> None:
        self._progress.update(self._task, total=self.total or None, advance=count)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop_task(self._task)


@contextmanager
def download(name: str) -> Iterator[Download]:
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield Download(progress, progress.add_task(name, total=None))
