"""What a terminal shows of a sweep, and the one line of it that a pipe gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.core.standings import Group, Summary

BAR = 40  # letters
TOP = 10  # rows of either table
COLOURS = {Group.FINISHED: "green", Group.RUNNING: "yellow", Group.FAILED: "red"}
NUMBERS = ("val accuracy", "bytes", "milliseconds")
BEST = ("point", *NUMBERS, "what")

NOTHING = Summary()


@dataclass(frozen=True)
class AtWork:
    """One job that a worker has; `percent` is of the stage that `told` is about."""

    title: str
    host: str
    attempt: str
    percent: float | None
    told: str
    took: str


@dataclass(frozen=True)
class View:
    """`trouble` is why it may be out of date."""

    name: str
    state: str = "unknown"
    message: str = ""
    link: str = ""
    summary: Summary = NOTHING
    jobs: Sequence[AtWork] = ()
    best: Sequence[Mapping[str, str]] = ()
    trouble: str = ""
    over: bool = False
    completed: bool = False

    @property
    def line(self) -> str:
        """The same as long as nothing happened."""
        known = f"{self.state}, {self.summary.counts}" if self.summary.all else self.state
        return f"{self.name}: {self.trouble or known}"


def drawn(view: View) -> RenderableType:
    parts: list[RenderableType] = [_head(view), _bars(view.summary)]
    if view.jobs:
        parts.append(_jobs(view.jobs))
    if view.best:
        parts.append(_best(view.best))
    return Stack(*parts)


def _head(view: View) -> Text:
    head = Text.assemble((view.name, "bold"), f" {view.state}  ", (view.link, "dim"))
    for text, style in ((view.message, ""), (view.trouble, "red"), (view.summary.told, "")):
        if text:
            head.append(f"\n{text}", style)
    return head


def _bars(summary: Summary) -> Table:
    bars = Table.grid(padding=(0, 1))
    for group, colour in COLOURS.items():
        count = getattr(summary, group.value)
        bar = ProgressBar(summary.all or 1, count, BAR, complete_style=colour, finished_style=colour)
        bars.add_row(group.value, bar, f"{count:,} of {summary.all:,}")
    return bars


def _jobs(jobs: Sequence[AtWork]) -> Table:
    more = f", {TOP} of {len(jobs)}" if len(jobs) > TOP else ""
    table = _table(f"at work{more}", ("job", "host", "attempt", "for", "", ""), "job")
    for job in jobs[:TOP]:
        bar = "" if job.percent is None else ProgressBar(100, job.percent, BAR // 4)
        table.add_row(*map(Text, (job.title, job.host, job.attempt, job.took)), bar, Text(job.told))
    return table


def _best(best: Sequence[Mapping[str, str]]) -> Table:
    table = _table("the best on val", BEST, "what")
    for row in best[:TOP]:
        table.add_row(*(Text(row[column]) for column in BEST))
    return table


def _table(title: str, columns: Sequence[str], long: str) -> Table:
    """One column gives way where the terminal is narrow."""
    table = Table(title=title, title_justify="left", box=None, expand=True)
    for name in columns:
        justify = "right" if name in NUMBERS else "left"
        table.add_column(name, justify=justify, no_wrap=True, ratio=1 if name == long else None)
    return table
