"""Pictures of any kind become four verified splits: train, calibration (out of train), val and test."""

from contextlib import closing

import numpy as np

from stages.core import params, tables
from stages.core.datasets import findings, sources, storage, surveying
from stages.core.datasets.decoding import Rows
from stages.core.datasets.listing import TEST, TRAIN, VAL
from stages.core.running import files
from stages.core.running.command import Output
from stages.core.running.journal import Run, home


def main(
    run: Run,
    prepare: params.Prepare,
    seed: int,
    train: Output,
    calibration: Output,
    val: Output,
    test: Output,
    manifest: Output,
    details: Output,
    metrics: Output,
) -> None:
    listing = sources.listing(prepare.source, home())
    pixels = run.scratch / "pixels"
    survey = surveying.survey(listing, prepare, seed, pixels)
    numbers = surveying.class_numbers(survey)
    labels = np.array([numbers.get(item.label, -1) for item in listing.items])
    splits = np.array([place.split for place in survey.places])
    chosen = {
        train: splits == TRAIN,
        calibration: np.array(survey.calibrating),
        val: splits == VAL,
        test: splits == TEST,
    }
    with closing(Rows(pixels, prepare.image_size)) as images:
        mean, std = storage.statistics(images[n] for n in np.flatnonzero(chosen[train]).tolist())
        classes = tuple(listing.classes[label] for label in numbers)
        facts = storage.Facts(listing.name, classes, prepare.image_size, mean, std, prepare.fit)
        for folder, here in chosen.items():
            places: list[int] = np.flatnonzero(here).tolist()
            storage.write(folder, (images[n] for n in places), labels[here], facts, findings.roll(survey, places))
    rows = findings.manifest(survey)
    tables.write(manifest, list(rows[0]), rows)
    files.write_json(details, findings.details(survey) | {"image_size": prepare.image_size, "mean": mean, "std": std})
    run.metrics(metrics, findings.metrics(survey))
