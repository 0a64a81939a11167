"""The data card's facts as lines and tables of a terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stages.core import words
from stages.core.datacard import verdict
from stages.core.datacard.verdict import SPLITS

CLASSES = 60  # of more, the largest and the smallest halves of as many are shown
LISTED = 10
GROUP = 4  # names of a group of copies


def show(details: Mapping[str, Any], metrics: Mapping[str, Any], console: Console) -> None:
    """Names are text, never markup, and cannot steer the terminal."""
    details = verdict.plain(details)
    line = _printer(console)
    line(
        f"{details['dataset']}: {words.plural(verdict.pictures(metrics), 'picture')} of "
        f"{words.plural(len(details['classes']), 'class')}, {metrics['classes']:,} of them usable",
        "bold",
    )
    line(", ".join(f"{name} {count:,}" for name, count in metrics["pictures"].items()))
    line(f"{metrics['calibration']:,} of train calibrate; largest to rarest class {metrics['imbalance']:g} to 1")
    remarks = verdict.remarks(details, metrics)
    if not any(remark.grave for remark in remarks):
        line("Nothing was found that speaks against this data set.", "bold green")
    for remark in remarks:
        line(f"{remark.title}: {remark.text}", "bold red" if remark.grave else "")
    line(verdict.LOOKED_FOR, "dim")
    console.print(_counts(details["classes"]))
    _common(line, "Sizes", details["sizes"], verdict.decoded(metrics))
    _common(line, "Modes", details["modes"], verdict.decoded(metrics))
    for reason, count in details["excluded"].items():
        line(f"Left out: {count:,}, {reason}")
    broken = [f"{one['name']} ({one['class']}): {one['reason']}" for one in details["broken"]]
    _list(line, "Broken files", broken, metrics["broken"])
    _list(line, "Conflicting labels", list(map(_group, details["conflicts"])), metrics["conflicting_labels"])
    _list(line, "Exact copies", list(map(_group, details["copies"])), len(details["copies"]))
    _list(line, "Near copies", list(map(_pair, details["near_copies"])), metrics["near_copies"])


def _printer(console: Console) -> Callable[..., None]:
    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    return line


def _counts(counts: Sequence[Mapping[str, Any]]) -> Table:
    rows = verdict.largest_first(counts)
    hidden = max(len(rows) - CLASSES, 0)
    table = Table(title="Pictures of each class", title_justify="left", box=None, pad_edge=False)
    table.add_column("class", overflow="fold")
    names = (*SPLITS, "excluded")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for at, row in enumerate(rows):
        if hidden and at == CLASSES // 2:
            table.add_row(Text(f"... {hidden:,} classes between ...", "dim"))
        if not hidden or at < CLASSES // 2 or at >= len(rows) - CLASSES // 2:
            table.add_row(Text(row["class"]), *(f"{row[name]:,}" for name in names))
    return table


def _common(line: Callable[..., None], title: str, entries: Sequence[Mapping[str, Any]], total: int) -> None:
    shown = entries[:LISTED]
    rest = total - sum(entry["pictures"] for entry in shown)
    more = f", and {words.plural(rest, 'picture')} of other {title.lower()}" if rest else ""
    counted = ", ".join(f"{entry['value']} ({entry['pictures']:,})" for entry in shown)
    line(f"{title}: {counted}{more}")


def _list(line: Callable[..., None], title: str, entries: Sequence[str], total: int) -> None:
    if entries:
        line(f"{title}: {total:,}", "bold")
        for entry in entries[:LISTED]:
            line(f"  {entry}")
        if total > LISTED:
            line(f"  and {total - LISTED:,} more")


def _group(group: Sequence[Mapping[str, Any]]) -> str:
    more = f" = {len(group) - GROUP:,} more" if len(group) > GROUP else ""
    return " = ".join(f"{one['name']} ({one['class']}, {one['split']})" for one in group[:GROUP]) + more


def _pair(pair: Mapping[str, Any]) -> str:
    mark = "ACROSS SPLITS " if verdict.across(pair["pictures"]) else ""
    return f"{mark}{pair['cosine']:.4f} {_group(pair['pictures'])}"
