"""Pictures of any kind become four verified splits: train, calibration (out of train), val and test."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.core import params, tables
from stages.core.datasets import pictures, splits, storage
from stages.core.datasets.sources import SOURCES, Listing
from stages.core.datasets.splits import CHOOSING, EXCLUDED, JUDGING, LEARNING, Member
from stages.core.running import progress
from stages.core.running.command import Output
from stages.core.running.journal import Run


def main(
    run: Run,
    prepare: params.Prepare,
    seed: int,
    train: Output,
    calibration: Output,
    val: Output,
    test: Output,
    manifest: Output,
    metrics: Output,
) -> None:
    listing = SOURCES[prepare.source.name](prepare.source)
    pixels, contents = decode(listing, prepare.image_size)
    members = [Member(content, item.label) for content, item in zip(contents, listing.items, strict=True)]
    places = splits.assign(members, listing.classes, prepare.val_share, prepare.test_share, seed)
    calibrating = splits.calibration(members, places, prepare.calibration_images, seed)
    at = np.array(places)
    mean, std = storage.statistics(pixels[at == LEARNING])
    facts = storage.Facts(listing.name, listing.classes, prepare.image_size, mean, std)
    labels = np.array([member.label for member in members])
    chosen = {train: at == LEARNING, calibration: np.array(calibrating), val: at == CHOOSING, test: at == JUDGING}
    for folder, here in chosen.items():
        storage.write(folder, pixels[here], labels[here], facts)
    write_manifest(manifest, listing, members, places, calibrating)
    run.metrics(metrics, summarise(members, places, calibrating) | {"other_files": listing.other_files})


def decode(listing: Listing, size: int) -> tuple[np.ndarray, list[str]]:
    """Every picture at its final size, and the digest of its content as it was."""
    pixels = np.empty((len(listing.items), size, size, 3), np.uint8)
    contents: list[str] = []
    for position, item in enumerate(progress.track(listing.items, "decode", len(listing.items))):
        picture = item.open()
        contents.append(pictures.digest(picture))
        pixels[position] = pictures.square(picture, size)
    return pixels, contents


def write_manifest(
    path: Path, listing: Listing, members: Sequence[Member], places: Sequence[str], calibrating: Sequence[bool]
) -> None:
    rows = [
        {
            "name": item.name,
            "content": member.content,
            "class": listing.classes[item.label],
            "split": place,
            "calibration": int(calibrates),
        }
        for item, member, place, calibrates in zip(listing.items, members, places, calibrating, strict=True)
    ]
    tables.write(path, list(rows[0]), sorted(rows, key=lambda row: str(row["name"])))


def summarise(members: Sequence[Member], places: Sequence[str], calibrating: Sequence[bool]) -> dict[str, object]:
    counts, by_class = Counter(places), Counter(member.label for member in members)
    return {
        "classes": len(by_class),
        "pictures": {name: counts[name] for name in (LEARNING, CHOOSING, JUDGING, EXCLUDED)},
        "calibration": sum(calibrating),
        "copies": len(members) - len({member.content for member in members}),
        "rarest_class": min(by_class.values()),
    }
