"""The data card: one HTML page about a data set that needs nothing else, not even a network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages.core import words
from stages.core.datacard import verdict
from stages.core.datacard.pictures import Tile
from stages.core.datacard.verdict import SPLITS

HERE = Path(__file__).parent
CLASSES = 60  # of more, the largest and the smallest halves of as many are shown
SIZES = 12
LISTED = 50  # entries of a list
GROUP = 8  # names of a group of copies
KEPT = 1_000  # of a kind, that the details hold at most
GRID = 24  # classes with samples, and rows of augmentation
ACROSS = 12  # pictures in a row
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Bar:
    """A label, a count, and the count as a share of the largest."""

    label: str
    count: int
    share: float


@dataclass(frozen=True)
class Row:
    """A class's counts, and the width of each as a share of the largest class."""

    name: str
    counts: Mapping[str, int]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Shown:
    """The head of a list, and in words what of it is missing."""

    entries: Sequence[Any]
    rest: str


def render(
    details: Mapping[str, Any],
    metrics: Mapping[str, Any],
    samples: Mapping[str, Sequence[np.ndarray]],
    augmented: Sequence[Sequence[np.ndarray]],
    augment: Mapping[str, Any] | None,
    title: str,
) -> str:
    """Names are text, never HTML; what the template asks for and is not given is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"whole": words.whole, "plural": words.plural}
    environment.globals["in_group"] = GROUP
    environment.tests["across"] = verdict.across
    details, title = verdict.plain(details), verdict.plain(title)
    found = verdict.remarks(details, metrics)
    style = Markup((HERE / "card.css").read_text(encoding="utf-8"))  # noqa: S704 - a file of this very package
    return environment.get_template("card.html.jinja").render(
        **_classes(details["classes"]),
        **_kinds(details["sizes"], metrics),
        **_lists(details, metrics),
        title=title,
        style=style,
        details=details,
        metrics=metrics,
        splits=SPLITS,
        total=verdict.pictures(metrics),
        grave=[remark for remark in found if remark.grave],
        slight=[remark for remark in found if not remark.grave],
        looked_for=verdict.LOOKED_FOR,
        colours=list(zip(COLOURS, details["mean"], details["std"], strict=True)),
        mean_colour=", ".join(str(round(255 * value)) for value in details["mean"]),
        samples=_samples(samples),
        sampled=len(samples),
        augmented=_augmented(augmented),
        settings=None if augment is None else augmentation(augment),
    )


def augmentation(augment: Mapping[str, bool | float]) -> list[str]:
    """What is on, in words."""
    said = {
        "mirror": "mirrored left and right, or not",
        "flip": "turned upside down, or not",
        "shift": "shifted by up to {0} px each way",
        "rotate": "rotated by up to {0:g}° either way",
        "crop": "cropped at random to no less than {1} of the area",
        "stretch": "stretched by up to {0:g}×",
        "brightness": "brightness changed by up to {1}",
        "contrast": "contrast changed by up to {1}",
        "saturation": "saturation changed by up to {1}",
        "hue": "hue turned by up to {1} of the circle",
        "erase": "a random box erased from {1} of the pictures",
    }
    neutral = {"crop": 1, "stretch": 1}  # the value of all others is 0
    on = {name: value for name, value in augment.items() if value and value != neutral.get(name, 0)}
    return [
        said[name].format(value, words.level(float(value))) if name in said else f"{verdict.plain(name)}: {value}"
        for name, value in on.items()
    ]


def _classes(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    order = verdict.largest_first(counts)
    names = (*SPLITS, "excluded")
    most = max(sum(row[name] for name in names) for row in order)
    rows = [
        Row(row["class"], {name: row[name] for name in names}, {name: row[name] / most for name in names})
        for row in order
    ]
    half = CLASSES // 2
    parts = [rows] if len(rows) <= CLASSES else [rows[:half], rows[-half:]]
    return {"parts": parts, "hidden_classes": len(rows) - sum(len(part) for part in parts)}


def _kinds(sizes: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> dict[str, Any]:
    shown = sizes[:SIZES]
    rest = verdict.decoded(metrics) - sum(entry["pictures"] for entry in shown)
    others = len(sizes) - len(shown)
    more = f"{words.plural(rest, 'picture')} of {_at_least(sizes)}{words.plural(others, 'other size')}" if rest else ""
    return {
        "sizes": _bars([(entry["value"].replace(" x ", " × "), entry["pictures"]) for entry in shown]),
        "other_sizes": more,
        "sides": _short_sides(sizes) if others else [],
        "sides_counted": sum(entry["pictures"] for entry in sizes),
    }


def _short_sides(sizes: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """How many pictures have a shorter side of 1, 2 to 3, 4 to 7 ... pixels, with no gap between."""
    counts: dict[int, int] = {}
    for entry in sizes:
        power = int(math.log2(min(verdict.sides(entry["value"]))))
        counts[power] = counts.get(power, 0) + entry["pictures"]
    powers = range(min(counts), max(counts) + 1)
    return _bars([(f"{2**power:,} to {2 ** (power + 1) - 1:,}", counts.get(power, 0)) for power in powers])


def _bars(counts: Sequence[tuple[str, int]]) -> list[Bar]:
    most = max((count for _, count in counts), default=1)
    return [Bar(label, count, count / most) for label, count in counts]


def _lists(details: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Shown]:
    totals = {
        "broken": metrics["broken"],
        "conflicts": metrics["conflicting_labels"],
        "copies": len(details["copies"]),
        "near_copies": metrics["near_copies"],
    }
    return {name: _shown(details[name], total) for name, total in totals.items()}


def _shown(entries: Sequence[Any], total: int) -> Shown:
    rest = max(total, len(entries)) - LISTED
    if rest <= 0:
        return Shown(entries, "")
    unsure = _at_least(entries) if total <= len(entries) else ""
    where = f"the details file has the first {KEPT:,}" if len(entries) >= KEPT else "the details file has all"
    return Shown(entries[:LISTED], f"And {unsure}{rest:,} more; {where}.")


def _at_least(entries: Sequence[Any]) -> str:
    """Of what the details cut short, nobody knows the number."""
    return "at least " if len(entries) >= KEPT else ""


def _samples(samples: Mapping[str, Sequence[np.ndarray]]) -> list[tuple[str, list[Tile]]]:
    shown = [(verdict.plain(name), images) for name, images in samples.items()][:GRID]
    return [(name, [Tile(image, f"Training picture of {name}") for image in images[:ACROSS]]) for name, images in shown]


def _augmented(rows: Sequence[Sequence[np.ndarray]]) -> list[list[Tile]]:
    captions = ["As it is", *(f"Draw {number}" for number in range(1, ACROSS))]
    return [[Tile(image, caption) for image, caption in zip(row, captions, strict=False)] for row in rows[:GRID]]
