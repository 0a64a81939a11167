"""Pictures a second into training: a prepared split in our batches, and torchvision's ImageFolder in a DataLoader."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from stages.core import batches, hardware, machine, params, statistics
from stages.core.batches import Pictures
from stages.core.datasets.storage import Split
from stages.core.machine import Machine

SMALLEST_CROP, STRETCH = 0.6, 4 / 3
AUGMENT = params.Augment(
    mirror=True,
    flip=False,
    shift=0,
    rotate=0.0,
    crop=SMALLEST_CROP,
    stretch=STRETCH,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    erase=0.0,
)
COMPUTE = params.Compute(
    device="auto", precision="float32", compile="off", deterministic=True, processes=1, threads=0, resident=0.5
)
UNMIXED = params.Unmixed(name="none")
CONFIDENCE = 0.95

Batches = Iterable[tuple[Tensor, Tensor]]


def compare(
    folder: Path, prepared: Split, image_size: int, batch_size: int, workers: int, rounds: int
) -> dict[str, Any]:
    """Whole epochs in turns, after one of each that does not count: caches are warm and workers have started.

    Both give random crops, mirrored or not, as normalised batches on the device. Ours were decoded once, before; the
    DataLoader decodes each epoch anew.
    """
    here = machine.choose(COMPUTE, seed=0)
    pictures = batches.on_device(prepared, here)
    loader = torchvision(folder, prepared, image_size, batch_size, workers, here)
    rates: dict[str, list[float]] = {"ours": [], "torchvision": []}
    for number in range(rounds + 1):
        rates["ours"].append(rate(ours(pictures, batch_size, number), here))
        rates["torchvision"].append(rate(delivered(loader, here), here))
    measured = {name: np.array(values[1:]) for name, values in rates.items()}
    facts: dict[str, Any] = {"workers": workers, "rounds": rounds, "streamed": pictures.streamed}
    for name, values in measured.items():
        facts |= {f"{name}_pictures_per_second": float(np.median(values)), f"{name}_rounds": values.tolist()}
        facts |= {f"{name}_lowest": float(values.min()), f"{name}_highest": float(values.max())}
    ratios = measured["ours"] / measured["torchvision"]
    low, high = statistics.median_interval(ratios, CONFIDENCE)
    facts |= {"times_faster": float(np.median(ratios)), "times_faster_low": low, "times_faster_high": high}
    return facts | {"device": device(here), "machine": hardware.describe()}


def ours(pictures: Pictures, batch_size: int, epoch: int) -> Batches:
    stream = batches.shuffled(pictures, batch_size, AUGMENT, UNMIXED, seed=0, epoch=epoch)
    return ((batch.images, batch.labels) for batch in stream)


def torchvision(
    folder: Path, prepared: Split, image_size: int, batch_size: int, workers: int, here: Machine
) -> DataLoader[tuple[Tensor, Tensor]]:
    """As torchvision's own reference trains: the crop is cut and resized while the picture still is Pillow's."""
    steps = [
        v2.RandomResizedCrop(image_size, scale=(SMALLEST_CROP, 1), ratio=(1 / STRETCH, STRETCH)),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(prepared.facts.mean), list(prepared.facts.std)),
    ]
    return DataLoader(
        ImageFolder(folder, v2.Compose(steps)),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=here.device.type == "cuda",
    )


def delivered(loader: Batches, here: Machine) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in loader:
        yield images.to(here.device, non_blocking=True), labels.to(here.device, non_blocking=True)


def rate(epoch: Batches, here: Machine) -> float:
    """Until the device has the last of them."""
    began, count = time.perf_counter(), 0
    for _, labels in epoch:
        count += len(labels)
    if here.device.type == "cuda":
        torch.cuda.synchronize(here.device)
    return count / (time.perf_counter() - began)


def device(here: Machine) -> str:
    return torch.cuda.get_device_name(here.device) if here.device.type == "cuda" else here.device.type
