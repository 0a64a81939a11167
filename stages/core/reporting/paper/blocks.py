"""What a paper is made of. The type-setter knows these, and nothing of networks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stages.core import words
from stages.core.reporting.sheets import Table

ROWS, COLUMNS = 24, 10  # of a table; a longer one is a file's business


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 1


@dataclass(frozen=True)
class Text:
    """`strong` is a verdict, in front of its reasons."""

    text: str
    strong: str = ""


@dataclass(frozen=True)
class Sheet:
    """`more`: what does not stand here and where it does."""

    table: Table
    wordy: tuple[bool, ...]
    more: str


@dataclass(frozen=True)
class Image:
    """A file of its own; a place may stay without a picture."""

    file: str
    content: bytes


@dataclass(frozen=True)
class Figure(Image):
    """`width` in pixels."""

    width: float
    caption: str


@dataclass(frozen=True)
class Figures:
    """Side by side where they have room."""

    images: Sequence[Figure]


@dataclass(frozen=True)
class Picture(Image):
    lines: Sequence[str]
    warning: bool


@dataclass(frozen=True)
class Pictures:
    """So many beside each other; small ones are enlarged as they are, without smoothing."""

    images: Sequence[Picture]
    columns: int
    small: bool


@dataclass(frozen=True)
class Facts:
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Code:
    text: str


Block = Heading | Text | Sheet | Figures | Pictures | Facts | Code


def plain(block: Block) -> dict[str, Any]:
    """As JSON says it, which has no word for images."""

    def without_images(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if not isinstance(value, bytes)}

    return {"kind": type(block).__name__.lower()} | asdict(block, dict_factory=without_images)


def sheet(name: str, table: Table) -> Sheet:
    """As much of a table as a page bears."""
    rows = [replace(row, cells=row.cells[:COLUMNS]) for row in table.rows[:ROWS]]
    shown = replace(table, heads=table.heads[:COLUMNS], rows=rows)
    left = {"row": len(table.rows) - len(rows), "column": len(table.heads) - len(shown.heads)}
    more = [words.plural(count, f"more {noun}") for noun, count in left.items() if count]
    said = f"… and {words.listed(more)}, see tables/{name}.csv" if more else ""
    return Sheet(shown, table.wordy[:COLUMNS], said)
