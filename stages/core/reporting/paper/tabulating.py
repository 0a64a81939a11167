"""The page's tables for spreadsheets and programs (CSV), notes (Markdown) and papers (LaTeX)."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.core import tables
from stages.core.reporting.comparison import Comparison
from stages.core.reporting.sheets import Cell, Table

MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&$]")
SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{NO-BREAK SPACE}": "~",
}
RAISED = dict(zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True))
LATEX = str.maketrans(SPECIAL | {high: rf"\textsuperscript{{{low}}}" for high, low in RAISED.items()})


def write(folder: Path, sheets: Mapping[str, Table]) -> None:
    """Each in every format."""
    for name, table in sheets.items():
        for ending, as_format in FORMATS.items():
            as_format(folder / f"{name}.{ending}", table)


def csv(path: Path, table: Table) -> None:
    """A number, the ends of its interval, and how the page says them have a column each."""
    columns: dict[str, Sequence[Any]] = {table.corner or "name": [row.label for row in table.rows]}
    if any(row.hint for row in table.rows):
        columns["hint"] = [row.hint for row in table.rows]
    for at, head in enumerate(_distinct(table.heads)):
        cells = [row.cells[at] for row in table.rows]
        numbers = {head: "value", f"{head} low": "low", f"{head} high": "high"}
        found = {name: [getattr(cell, part) for cell in cells] for name, part in numbers.items()}
        columns |= {name: column for name, column in found.items() if any(one is not None for one in column)}
        columns[f"{head} said" if head in columns else head] = [said(cell) for cell in cells]
    tables.write(
        path, list(columns), (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    )


def statistics(path: Path, found: Sequence[Comparison]) -> None:
    """Every comparison with all that was asked of it."""
    rows = [
        {
            "network": one.network,
            "other": one.other,
            "pictures": one.pictures,
            "lost": one.lost,
            "won": one.won,
            "difference": one.difference,
            **dict(zip(("low", "high"), one.interval, strict=True)),
            **dict(zip(("bootstrap_low", "bootstrap_high"), one.resampled, strict=True)),
            "confidence": one.confidence,
            "p_mcnemar": one.uncorrected,
            "p_holm": one.p,
            "margin": one.margin,
            "p_equivalent": one.p_equivalent,
            "verdict": one.verdict,
        }
        for one in found
    ]
    tables.write(path, list(rows[0]), rows)


def _distinct(heads: Sequence[str]) -> list[str]:
    """Two columns may stand under one head on the page, not in a file."""
    return [f"{head} {1 + heads[:at].count(head)}" if head in heads[:at] else head for at, head in enumerate(heads)]


def markdown(path: Path, table: Table) -> None:
    heads, *rows = (" | ".join(map(_markdown, line)) for line in _lines(table))
    rule = " | ".join(["---", *("---" if wordy else "---:" for wordy in table.wordy)])
    path.write_text("".join(f"| {line} |\n" for line in (heads, rule, *rows)), encoding="utf-8")


def _markdown(text: str) -> str:
    return MARKUP.sub(r"\\\g<0>", text.replace("\n", " "))


def latex(path: Path, table: Table) -> None:
    """For a preamble with booktabs."""
    heads, *rows = ([_latex(text) for text in line] for line in _lines(table))
    columns = "".join("l" if wordy else "r" for wordy in (True, *table.wordy))
    style = pd.DataFrame(rows, columns=pd.RangeIndex(len(heads))).style
    style.hide(axis="index").relabel_index(heads, axis="columns")
    path.write_text(style.to_latex(hrules=True, column_format=columns), encoding="utf-8")


def _latex(text: str) -> str:
    """What begins with [ or * would be taken for an option of the line before."""
    return ("{}" if text.startswith(("[", "*")) else "") + text.replace("\n", " ").translate(LATEX)


def _lines(table: Table) -> Iterator[list[str]]:
    """Heads and rows, a text for each cell."""
    yield [table.corner, *table.heads]
    for row in table.rows:
        hint = f" ({row.hint})" if row.hint else ""
        yield [f"{row.label}{hint}", *map(said, row.cells)]


def said(cell: Cell) -> str:
    """On one line, where the page has several."""
    details = ", ".join(detail for detail in cell.details if not detail.startswith("["))
    intervals = [detail for detail in cell.details if detail.startswith("[")]
    first = " ".join(filter(None, (cell.text or cell.quiet, *intervals)))
    return "; ".join(filter(None, (first, details, cell.warning)))


FORMATS: dict[str, Callable[[Path, Table], None]] = {"csv": csv, "md": markdown, "tex": latex}
