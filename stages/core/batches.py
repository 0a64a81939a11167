"""A split as tensors, and batches of it with no Python per picture.

A split either lies on the device or, if it is too large, stays on the host, where a thread gathers the next batches;
both give the same batches to the bit. What an epoch sees follows from the seed and the epoch's number alone, so that a
resumed run needs no generator's state.
"""

import math
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

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
    most = max(2, min(512, PIXELS // pictures.images[0, ..., 0].numel()))
    count = math.ceil(len(pictures) / most)
    parts = torch.arange(len(pictures)).tensor_split(count)
    labels = pictures.labels.tensor_split(count)
    images = _ahead(pictures, parts) if pictures.streamed else pictures.images.tensor_split(count)
    for batch, answers in zip(images, labels, strict=True):
        yield pictures.normalise(batch.permute(0, 3, 1, 2)), answers


def shuffled(
    pictures: Pictures,
    size: int,
    augment: params.Augment,
    mix: params.Mix,
    seed: int,
    epoch: int,
    skip: int = 0,
    part: Part = WHOLE,
) -> Generator[tuple[Tensor, Tensor]]:
    """One epoch in random order, augmented and mixed; labels are int64, or probabilities if they are mixed.

    A last batch of one picture is left out, since BatchNorm has no use for it. The first `skip` batches are passed
    over, and of each batch only one process's part is given.
    """
    for_order, for_recipe, for_mix = np.random.SeedSequence((seed, epoch)).spawn(3)
    host_order = torch.from_numpy(np.random.default_rng(for_order).permutation(len(pictures)))
    _, height, width, _ = pictures.images.shape
    recipe = augmentation.recipe(augment, len(pictures), (height, width), for_recipe, pictures.device)
    order = host_order.to(pictures.device)
    count = batches_per_epoch(len(pictures), size, part.of)
    generators = [np.random.default_rng(child) for child in for_mix.spawn(count)[skip:]]
    rows = [slice(size * n + part.number, min(size * (n + 1), len(order)), part.of) for n in range(skip, count)]
    if pictures.streamed:
        batches = _ahead(pictures, [host_order[row] for row in rows])
    else:
        batches = (pictures.images.index_select(0, order[row]) for row in rows)
    for row, batch, generator in zip(rows, batches, generators, strict=True):
        how = augmentation.part(recipe, row)
        images = pictures.normalise(augmentation.seen(batch, how))
        augmentation.erase(images, how)
        yield augmentation.MIXES[mix.name](mix, images, pictures.labels[order[row]], pictures.classes, generator)


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
