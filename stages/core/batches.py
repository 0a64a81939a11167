"""A split as tensors, and batches of it with no Python per picture.

A split either lies on the device or, if it is too large, stays on the host, where a thread gathers the next batches;
both give the same batches to the bit. What an epoch sees follows from the seed and the epoch's number alone, so that a
resumed run needs no generator's state.
"""

import math
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.core import augmentation, params
from stages.core.datasets.storage import Split
from stages.core.machine import Machine

PIXELS = 2**21  # of a batch without gradients: 512 pictures of 64 x 64, 41 of 224 x 224
AHEAD = 3  # batches


@dataclass(frozen=True)
class Part:
    """Which pictures of each batch are this process's, where several train together."""

    number: int
    of: int


WHOLE = Part(0, 1)


class Batch(NamedTuple):
    """Labels are int64, or probabilities if pictures are blended; `numbers` are the pictures' places in their split."""

    images: Tensor
    labels: Tensor
    numbers: Tensor
    advice: Tensor | None = None  # logits of a teacher that was asked before

    def split(self, pieces: int) -> Iterator["Batch"]:
        parts = [values.tensor_split(pieces) if values is not None else (None,) * pieces for values in self]
        return (Batch(*some) for some in zip(*parts, strict=True))


@dataclass(frozen=True)
class Pictures:
    images: Tensor  # uint8, N x H x W x 3; on the host if they are streamed
    labels: Tensor
    mean: Tensor
    std: Tensor
    classes: int
    layout: torch.memory_format
    streamed: bool

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[1], self.images.shape[2]

    def normalise(self, images: Tensor) -> Tensor:
        """N x 3 x H x W, uint8 or from 0 to 1; the result is a tensor of its own."""
        if images.is_floating_point():
            return images.sub(self.mean).div_(self.std).contiguous(memory_format=self.layout)
        return images.to(torch.float32, memory_format=self.layout).div_(255).sub_(self.mean).div_(self.std)


def on_device(split: Split, machine: Machine) -> Pictures:
    """A copy also on a CPU: what is only mapped can be taken from memory at any time, and read again and again."""
    streamed = split.images.nbytes > machine.resident * machine.free_memory()
    images = _shared(split.images)
    mean, std = (
        torch.tensor(numbers, dtype=torch.float32, device=machine.device).view(1, 3, 1, 1)
        for numbers in (split.facts.mean, split.facts.std)
    )
    return Pictures(
        images=images if streamed else images.to(machine.device, copy=True),
        labels=torch.from_numpy(split.labels).to(machine.device),
        mean=mean,
        std=std,
        classes=len(split.facts.classes),
        layout=machine.layout,
        streamed=streamed,
    )


def in_order(pictures: Pictures) -> Generator[tuple[Tensor, Tensor]]:
    """Every picture once, as it is, in batches of equal size give or take one."""
    parts = parts_in_order(pictures)
    labels = pictures.labels.tensor_split(len(parts))
    images = _ahead(pictures, parts) if pictures.streamed else pictures.images.tensor_split(len(parts))
    for batch, answers in zip(images, labels, strict=True):
        yield pictures.normalise(batch.permute(0, 3, 1, 2)), answers


def parts_in_order(pictures: Pictures) -> tuple[Tensor, ...]:
    """Numbers of pictures, on the host, in batches that fit in memory where no gradient is kept."""
    height, width = pictures.size
    most = max(2, min(512, PIXELS // (height * width)))
    return torch.arange(len(pictures)).tensor_split(math.ceil(len(pictures) / most))


@dataclass(frozen=True)
class Order:
    """Of one epoch: the pictures' numbers, here and on the host, and which of them make a batch."""

    numbers: Tensor
    on_host: Tensor
    rows: list[slice]

    @classmethod
    def drawn(
        cls, pictures: Pictures, size: int, entropy: np.random.SeedSequence, skip: int = 0, part: Part = WHOLE
    ) -> "Order":
        """A last batch of one picture is left out, since BatchNorm has no use for it.

        The first `skip` batches are passed over, and of each batch only one process's part is taken.
        """
        on_host = torch.from_numpy(np.random.default_rng(entropy).permutation(len(pictures)))
        count = batches_per_epoch(len(pictures), size, part.of)
        ends = [(size * number, min(size * (number + 1), len(pictures))) for number in range(skip, count)]
        return cls(
            on_host.to(pictures.device), on_host, [slice(low + part.number, high, part.of) for low, high in ends]
        )

    def beside(self, pictures: Pictures) -> list[Tensor]:
        """Each batch's numbers, where the pictures lie."""
        return [(self.on_host if pictures.streamed else self.numbers)[row] for row in self.rows]


def shuffled(
    pictures: Pictures,
    size: int,
    augment: params.Augment,
    mix: params.Mix,
    seed: int,
    epoch: int,
    skip: int = 0,
    part: Part = WHOLE,
) -> Generator[Batch]:
    """One epoch in random order, augmented and mixed."""
    for_order, for_recipe, for_mix = np.random.SeedSequence((seed, epoch)).spawn(3)
    order = Order.drawn(pictures, size, for_order, skip, part)
    recipe = augmentation.recipe(augment, len(pictures), pictures.size, for_recipe, pictures.device)
    generators = [np.random.default_rng(child) for child in for_mix.spawn(skip + len(order.rows))[skip:]]
    raw = fetched(pictures, order.beside(pictures))
    for row, batch, generator in zip(order.rows, raw, generators, strict=True):
        images = seen(pictures, batch, augmentation.part(recipe, row))
        numbers = order.numbers[row]
        mixed = augmentation.MIXES[mix.name](mix, images, pictures.labels[numbers], pictures.classes, generator)
        yield Batch(*mixed, numbers)


def seen(pictures: Pictures, batch: Tensor, how: augmentation.Recipe) -> Tensor:
    """Raw pictures as a network sees them: augmented and normalised."""
    images = pictures.normalise(augmentation.seen(batch, how))
    augmentation.erase(images, how)
    return images


def fetched(pictures: Pictures, chosen: Sequence[Tensor]) -> Iterator[Tensor]:
    """Raw pictures of these numbers, which lie where the pictures lie."""
    if pictures.streamed:
        return _ahead(pictures, chosen)
    return (pictures.images.index_select(0, numbers) for numbers in chosen)


def batches_per_epoch(count: int, size: int, parts: int = 1) -> int:
    """Each part of a batch has two pictures at least."""
    return count // size + (count % size >= 2 * parts)


def _ahead(pictures: Pictures, parts: Sequence[Tensor]) -> Generator[Tensor]:
    """Batches of pictures on the host, gathered and sent by a thread that ends with this generator, however it ends."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lightvision-batches")
    coming = iter(parts)
    try:
        waiting = deque(pool.submit(_gathered, pictures, part) for part in islice(coming, AHEAD))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(_gathered, pictures, part) for part in islice(coming, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _gathered(pictures: Pictures, chosen: Tensor) -> Tensor:
    """Read in the order of the file, and by numpy: torch's threads would take the cores from the network.

    From pinned memory, which torch keeps until it is copied, nobody waits for the copy.
    """
    order = chosen.argsort()
    pinned = pictures.device.type == "cuda"
    batch = torch.empty((len(chosen), *pictures.images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
    batch.numpy()[order.numpy()] = pictures.images.numpy().take(chosen[order].numpy(), axis=0)
    return batch.to(pictures.device, non_blocking=pinned)


def _shared(array: np.ndarray) -> Tensor:
    """The very memory, or the very file, of an array that nobody writes to; torch only warns that one might."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
