"""Where teacher and student look, on pictures where they disagree."""

from dataclasses import dataclass
from pathlib import Path

from stages.core import words
from stages.core.reporting.examples import data_uri
from stages.core.reporting.findings import Attention, Looked
from stages.core.running.errors import Refusal

WHO = ("teacher", "student")


@dataclass(frozen=True)
class View:
    """`source` is empty where nobody could tell where the network looks."""

    name: str
    source: str
    answer: str
    confidence: str
    right: bool


@dataclass(frozen=True)
class Looking:
    number: int
    label: str
    source: str
    views: list[View]


def read(folder: Path, found: Attention) -> list[Looking]:
    return [_looking(folder, one, found) for one in found.pictures]


def _looking(folder: Path, one: Looked, found: Attention) -> Looking:
    views = [_view(folder, one, who, found) for who in WHO]
    return Looking(one.picture, one.label, _picture(folder / f"{one.picture:06}.png"), views)


def _view(folder: Path, one: Looked, who: str, found: Attention) -> View:
    answer, confidence = getattr(one, who), getattr(one, f"{who}_confidence")
    source = _picture(folder / f"{one.picture:06}-{who}.png") if found.layers.get(who) else ""
    return View(who, source, answer, words.percent(confidence), answer == one.label)


def _picture(path: Path) -> str:
    if not path.is_file():
        raise Refusal(f"{path} is missing, and attention.json tells of it: `dvc repro evaluate` writes it anew")
    return data_uri(path)
