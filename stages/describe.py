"""The data card: what a person should know of the pictures before they trust a result."""

import numpy as np
import torch

from stages.core import batches, params
from stages.core.datacard import page
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.machine import Machine
from stages.core.running import files
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run

PICTURES, DRAWS = 6, 8  # rows and columns of what augmentation does
SAMPLES, CLASSES = 8, 24  # of each class, and classes that are shown


def main(
    run: Run,
    augment: params.Augment,
    seed: int,
    train: Input,
    details: Input,
    prepared: Input,
    card: Output,
) -> None:
    learning = storage.load(train)
    found = files.read_json(details)
    text = page.render(
        details=found,
        metrics=files.read_json(prepared),
        samples=samples(learning),
        augmented=augmented(learning, augment, seed),
        augment=augment.model_dump(),
        title=f"Data card: {found['dataset']}",
    )
    card.write_text(text, encoding="utf-8")
    run.tell(pictures=len(learning))


def samples(split: Split) -> dict[str, list[np.ndarray]]:
    """Evenly out of each class, so that no neighbourhood of files stands for all."""
    shown: dict[str, list[np.ndarray]] = {}
    for label, name in list(enumerate(split.facts.classes))[:CLASSES]:
        numbers = np.flatnonzero(split.labels == label)
        chosen = np.unique(np.linspace(0, len(numbers) - 1, min(SAMPLES, len(numbers))).astype(int))
        shown[name] = [split.images[number] for number in numbers[chosen]]
    return shown


def augmented(split: Split, augment: params.Augment, seed: int) -> list[list[np.ndarray]]:
    """Each picture as it is, then as a network would see it in one epoch after another: from the loop's own batches."""
    chosen = np.unique(np.linspace(0, len(split) - 1, PICTURES).astype(int))
    few = Split(split.facts, split.images[chosen], np.arange(len(chosen)))
    pictures = batches.on_device(few, Machine(torch.device("cpu"), torch.float32, resident=1.0))
    unmixed = params.Unmixed(name="none")
    rows = [[picture] for picture in few.images]
    for epoch in range(DRAWS):
        for images, numbers, *_ in batches.shuffled(pictures, len(chosen), augment, unmixed, seed, epoch):
            seen = (images * pictures.std + pictures.mean).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
            for number, image in zip(numbers.tolist(), seen.numpy(), strict=True):
                rows[number].append(image)
    return rows
