"""Tables that `dvc plots`, the report and people read: plain CSV."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stages.core.running import files


def write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    with files.writing(path), path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
