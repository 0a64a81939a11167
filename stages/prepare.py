"""Pictures of any kind become four verified splits: train, calibration (out of train), val and test."""

import numpy as np
import pandas as pd

from stages.core import params
from stages.core.datasets import pictures, storage
from stages.core.datasets.sources import SOURCES, Listing
from stages.core.datasets.splits import CHOOSING, EXCLUDED, JUDGING, LEARNING, assign
from stages.core.datasets.splits import calibration as choose_calibration
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
    table = pd.DataFrame(
        {
            "name": [item.name for item in listing.items],
            "content": contents,
            "label": [item.label for item in listing.items],
        }
    )
    table["class"] = table["label"].map(lambda label: listing.classes[label])
    table["split"] = assign(table, listing.classes, prepare.val_share, prepare.test_share, seed)
    table["calibration"] = choose_calibration(table, table["split"], prepare.calibration_images, seed)
    members = {
        train: table["split"] == LEARNING,
        calibration: table["calibration"],
        val: table["split"] == CHOOSING,
        test: table["split"] == JUDGING,
    }
    mean, std = storage.statistics(pixels[members[train].to_numpy()])
    facts = storage.Facts(listing.name, listing.classes, prepare.image_size, mean, std)
    for folder, chosen in members.items():
        storage.write(folder, pixels[chosen.to_numpy()], table["label"][chosen].to_numpy(), facts)
    table.sort_values("name").to_csv(manifest, index=False)
    run.metrics(metrics, summarise(table, listing.classes))


def decode(listing: Listing, size: int) -> tuple[np.ndarray, list[str]]:
    """Every picture at its final size, and the digest of its content as it was."""
    pixels = np.empty((len(listing.items), size, size, 3), np.uint8)
    contents: list[str] = []
    for position, item in enumerate(progress.track(listing.items, "decode", len(listing.items))):
        picture = item.open()
        contents.append(pictures.digest(picture))
        pixels[position] = pictures.square(picture, size)
    return pixels, contents


def summarise(table: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, object]:
    counts = table["split"].value_counts()
    return {
        "classes": len(classes),
        "pictures": {name: int(counts.get(name, 0)) for name in (LEARNING, CHOOSING, JUDGING, EXCLUDED)},
        "calibration": int(table["calibration"].sum()),
        "copies": int(table["content"].duplicated().sum()),
        "rarest_class": int(table["label"].value_counts().min()),
    }
