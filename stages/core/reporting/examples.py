"""Test pictures, carried inside the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stages.core import words


@dataclass(frozen=True)
class Example:
    source: str
    number: int
    label: str
    answer: str
    confidence: str
    mistake: bool


def read(folder: Path, answers: pd.DataFrame) -> list[Example]:
    """Mistakes first, then the least sure."""
    paths = {int(path.stem): path for path in folder.glob("*.png")}
    shown = answers[answers["picture"].isin(paths)]
    order = shown.assign(right=shown["quantized"] == shown["label"]).sort_values(["right", "quantized_confidence"])
    return [
        Example(
            source=data_uri(paths[int(row["picture"])]),
            number=int(row["picture"]),
            label=row["label"],
            answer=row["quantized"],
            confidence=words.percent(row["quantized_confidence"]),
            mistake=not row["right"],
        )
        for row in order.to_dict("records")
    ]


@dataclass(frozen=True)
class Failure:
    """One confusion, with those of its pictures that were kept."""

    actual: str
    predicted: str
    count: int
    pictures: list[Example]


def failures(kept: Sequence[Example], commonest: Sequence[tuple[str, str, int]]) -> list[Failure]:
    return [
        Failure(actual, predicted, count, [one for one in kept if (one.label, one.answer) == (actual, predicted)])
        for actual, predicted, count in commonest
    ]


def data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
