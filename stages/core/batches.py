"""A split as tensors on the device, and batches of it with no Python per picture.

What an epoch sees follows from the seed and the epoch's number alone, so that a resumed run needs no generator's state.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.core import params
from stages.core.datasets.storage import Split
from stages.core.machine import Machine

PIXELS = 2**21  # of a batch without gradients: 512 pictures of 64 x 64, 41 of 224 x 224


@dataclass(frozen=True)
class Pictures:
    images: Tensor  # uint8, N x 3 x H x W
    labels: Tensor
    mean: Tensor
    std: Tensor
    layout: torch.memory_format

    def __len__(self) -> int:
        return len(self.labels)

    def normalise(self, images: Tensor) -> Tensor:
        return ((images.float() / 255 - self.mean) / self.std).contiguous(memory_format=self.layout)


def on_device(split: Split, machine: Machine) -> Pictures:
    images = torch.from_numpy(split.images.copy()).permute(0, 3, 1, 2).to(machine.device)
    labels = torch.from_numpy(split.labels).to(machine.device)
    mean, std = (
        torch.tensor(numbers, dtype=torch.float32, device=machine.device).view(1, 3, 1, 1)
        for numbers in (split.facts.mean, split.facts.std)
    )
    return Pictures(images, labels, mean, std, machine.layout)


def in_order(pictures: Pictures) -> Iterator[tuple[Tensor, Tensor]]:
    """Every picture once, as it is, in batches of equal size give or take one."""
    most = max(2, min(512, PIXELS // pictures.images[0, 0].numel()))
    count = math.ceil(len(pictures) / most)
    parts = pictures.images.tensor_split(count), pictures.labels.tensor_split(count)
    for images, labels in zip(*parts, strict=True):
        yield pictures.normalise(images), labels


def shuffled(
    pictures: Pictures, size: int, augment: params.Augment, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, augmented; a last batch of one picture is left out, since BN has no use for it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(pictures), generator=generator)
    for start in range(0, len(pictures), size):
        chosen = order[start : start + size]
        if len(chosen) > 1:
            chosen = chosen.to(pictures.images.device)
            images = augmented(pictures.images[chosen], augment, generator)
            yield pictures.normalise(images), pictures.labels[chosen]


def batches_per_epoch(count: int, size: int) -> int:
    return count // size + (count % size > 1)


def augmented(images: Tensor, augment: params.Augment, generator: torch.Generator) -> Tensor:
    """Shift and mirror each picture by its own draw; what is shifted in repeats the border."""
    count, _, height, width = images.shape
    reach = augment.shift
    rows = _window(count, height, reach, generator)
    columns = _window(count, width, reach, generator)
    if augment.mirror:
        flip = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    picture = torch.arange(count, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _window(count: int, length: int, reach: int, generator: torch.Generator) -> Tensor:
    offsets = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
    return (torch.arange(length)[None, :] + offsets).clamp(0, length - 1)
