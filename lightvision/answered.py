"""Answers as a table for eyes, as lines of JSON, and as a CSV file."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from stages.core.predicting.classifying import Answer
from stages.core.predicting.wording import shown, text, width
from stages.core.running import files
from stages.core.running.errors import Refusal

WIDEST = 60  # columns that a path is given; a longer one pushes its own line to the right
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # with which spreadsheets take a cell for one
DIGITS = 7


class Told(Protocol):
    def tell(self, answer: Answer) -> None: ...


class Table:
    """Path, class, probability and the runners-up; what cannot be read is told elsewhere."""

    def __init__(self, stream: TextIO, paths: Sequence[str], classes: Sequence[str]) -> None:
        self._stream = stream
        self._path = min(WIDEST, max(width(shown(path)) for path in paths))
        self._class = max(width(shown(name)) for name in classes)

    def tell(self, answer: Answer) -> None:
        if answer.problem:
            return
        (name, chance), *others = answer.ranked
        cells = [_padded(shown(answer.asked), self._path), _padded(shown(name), self._class), f"{chance:6.1%}"]
        cells += [", ".join(f"{shown(other)} {chance:.1%}" for other, chance in others)]
        line = "  ".join(cells).rstrip()
        coding = self._stream.encoding or "utf-8"
        print(line.encode(coding, "backslashreplace").decode(coding), file=self._stream)


class Lines:
    """One JSON object for each picture, in ASCII: any program reads it, and no terminal obeys it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def tell(self, answer: Answer) -> None:
        print(json.dumps({"path": text(answer.asked)} | _fields(answer), allow_nan=False), file=self._stream)


class Csv:
    """A row for each picture: what is likeliest, why there is no answer, and the probability of every class."""

    def __init__(self, stream: TextIO, classes: Sequence[str]) -> None:
        self._writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        columns = (f"p({name})" for name in classes)
        self._writer.writerow(["path", "class", "probability", "error", *map(text, columns)])
        self._empty = [""] * len(classes)

    def tell(self, answer: Answer) -> None:
        path = _no_formula(text(answer.asked))
        if answer.problem:
            self._writer.writerow([path, "", "", text(answer.problem), *self._empty])
        else:
            chances = (_rounded(chance) for chance in answer.probabilities)
            self._writer.writerow([path, text(answer.name), _rounded(answer.probability), "", *chances])


@contextmanager
def csv_file(path: Path, classes: Sequence[str]) -> Iterator[Csv]:
    """Whole or not at all."""
    if path.exists() and not path.is_file():
        raise Refusal(f"--csv {path}: there is something there that is no file")
    final = Path(os.path.realpath(path))
    if not final.parent.is_dir():
        raise Refusal(f"--csv {path}: there is no folder {final.parent}")
    partial = final.with_name(final.name + ".partial")
    try:
        with files.writing(path):
            with partial.open("w", newline="", encoding="utf-8") as stream:
                yield Csv(stream, classes)
            files.publish(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def _fields(answer: Answer) -> dict[str, Any]:
    if answer.problem:
        return {"error": text(answer.problem)}
    ranked = [{"class": text(name), "probability": _rounded(chance)} for name, chance in answer.ranked]
    return ranked[0] | {"top": ranked}


def _rounded(chance: float) -> float:
    return float(f"{chance:.{DIGITS}g}")


def _no_formula(path: str) -> str:
    """The same file, by a name that no spreadsheet computes."""
    return f"./{path}" if path.startswith(FORMULAS) else path


def _padded(cell: str, columns: int) -> str:
    return cell + " " * (columns - width(cell))
