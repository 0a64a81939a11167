"""What was found in a data set: everything that a person should look at before they trust it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core.datasets.decoding import Seen
from stages.core.datasets.likeness import Pair
from stages.core.datasets.listing import TEST, TRAIN, VAL, Listing
from stages.core.datasets.splits import EXCLUDED, Place
from stages.core.datasets.storage import Roll

COLUMNS = ("name", "content", "class", "split", "calibration", "given", "width", "height", "mode", "note")
LISTED = 1_000  # of a kind, by name; more are counted


@dataclass(frozen=True)
class Survey:
    """A data set after it was decoded and dealt out: place n and seen n belong to item n of the listing."""

    listing: Listing
    seen: Sequence[Seen]
    places: Sequence[Place]
    calibrating: Sequence[bool]
    pairs: Sequence[Pair]
    groups: Sequence[str]


def manifest(survey: Survey) -> list[dict[str, object]]:
    """A row for each picture, by name."""
    found = zip(survey.listing.items, survey.seen, survey.places, survey.calibrating, strict=True)
    columns = (*COLUMNS, *survey.groups)
    rows: list[dict[str, object]] = []
    for item, seen, place, calibrates in found:
        own = (item.name, seen.content, survey.listing.classes[item.label], place.split, int(calibrates), item.given)
        as_seen = (seen.width, seen.height, seen.mode, seen.problem or place.reason)
        told = (item.groups[column] for column in survey.groups)
        rows.append(dict(zip(columns, (*own, *as_seen, *told), strict=True)))
    empty: dict[str, object] = dict.fromkeys(columns, "")
    rows += [empty | {"name": name, "split": "predict"} for name in survey.listing.unlabelled]
    return sorted(rows, key=lambda row: str(row["name"]))


def roll(survey: Survey, chosen: Sequence[int]) -> Roll:
    """Of these pictures."""
    items = [survey.listing.items[number] for number in chosen]
    groups = {column: [item.groups[column] for item in items] for column in survey.groups}
    return Roll([item.name for item in items], [survey.seen[number].content for number in chosen], groups)


def metrics(survey: Survey) -> dict[str, object]:
    """Counts that are compared from version to version."""
    splits = Counter(place.split for place in survey.places)
    by_class = Counter(
        item.label for item, place in zip(survey.listing.items, survey.places, strict=True) if place.split != EXCLUDED
    )
    contents = [seen.content for seen in survey.seen if seen.content]
    return {
        "classes": len(by_class),
        "pictures": {name: splits[name] for name in (TRAIN, VAL, TEST, EXCLUDED)},
        "unlabelled": len(survey.listing.unlabelled),
        "calibration": sum(survey.calibrating),
        "rarest_class": min(by_class.values(), default=0),
        "imbalance": round(max(by_class.values(), default=1) / min(by_class.values(), default=1), 3),
        "broken": len(survey.seen) - len(contents),
        "copies": len(contents) - len(set(contents)),
        "conflicting_labels": sum(len({label for _, label in group}) > 1 for group in _copies(survey)),
        "near_copies": len(survey.pairs),
        "near_copies_across_splits": sum(_straddles(survey, pair) for pair in survey.pairs),
        "other_files": survey.listing.other_files,
    }


def details(survey: Survey) -> dict[str, Any]:
    """By name, for the data card; of each kind as many as a person may want to read."""
    items, classes = survey.listing.items, survey.listing.classes
    copies = [
        [{"name": items[n].name, "class": classes[label], "split": survey.places[n].split} for n, label in group]
        for group in _copies(survey)
    ]
    broken = [
        {"name": item.name, "class": classes[item.label], "reason": seen.problem}
        for item, seen in zip(items, survey.seen, strict=True)
        if seen.problem
    ]
    excluded = Counter(
        place.reason
        for place, seen in zip(survey.places, survey.seen, strict=True)
        if place.reason and not seen.problem
    )
    return {
        "dataset": survey.listing.name,
        "classes": _counts(survey),
        "sizes": _common(f"{seen.width} x {seen.height}" for seen in survey.seen if seen.content),
        "modes": _common(seen.mode for seen in survey.seen if seen.content),
        "excluded": dict(excluded),
        "broken": broken[:LISTED],
        "conflicts": [group for group in copies if len({one["class"] for one in group}) > 1][:LISTED],
        "copies": [group for group in copies if len({one["class"] for one in group}) == 1][:LISTED],
        "near_copies": [_pair(survey, pair) for pair in _leaks_first(survey)][:LISTED],
    }


def _counts(survey: Survey) -> list[dict[str, str | int]]:
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for item, place in zip(survey.listing.items, survey.places, strict=True):
        counts[item.label][place.split] += 1
    names = (TRAIN, VAL, TEST, EXCLUDED)
    return [
        {"class": name} | {split: counts[label][split] for split in names}
        for label, name in enumerate(survey.listing.classes)
    ]


def _copies(survey: Survey) -> list[list[tuple[int, int]]]:
    """Groups of exact copies: the number and the label of each."""
    groups: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, (item, seen) in enumerate(zip(survey.listing.items, survey.seen, strict=True)):
        if seen.content:
            groups[seen.content].append((number, item.label))
    return [group for group in groups.values() if len(group) > 1]


def _straddles(survey: Survey, pair: Pair) -> bool:
    """Both are used, in different splits."""
    splits = {survey.places[n].split for n in (pair.first, pair.second)}
    return len(splits) > 1 and EXCLUDED not in splits


def _leaks_first(survey: Survey) -> list[Pair]:
    return sorted(survey.pairs, key=lambda pair: (not _straddles(survey, pair), -pair.cosine))


def _pair(survey: Survey, pair: Pair) -> dict[str, object]:
    ends = [
        {
            "name": survey.listing.items[n].name,
            "class": survey.listing.classes[survey.listing.items[n].label],
            "split": survey.places[n].split,
        }
        for n in (pair.first, pair.second)
    ]
    return {"pictures": ends, "cosine": round(pair.cosine, 4)}


def _common(values: Iterable[str]) -> list[dict[str, object]]:
    return [{"value": value, "pictures": count} for value, count in sorted(Counter(values).items(), key=_most)][:LISTED]


def _most(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]
