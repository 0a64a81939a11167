"""Augmented views of the training pictures that are the same for everybody.

A view follows from a seed and its number alone: each picture has its own augmentation in it and, if views are blended,
its own partner and share. So whatever a teacher says of a view holds for every student that sees it.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.core import augmentation, batches, params
from stages.core.batches import Pictures


@dataclass(frozen=True)
class View:
    """One look at every picture; rows are pictures, in the order of their split."""

    recipe: augmentation.Recipe
    partners: Tensor | None
    shares: Tensor | None
    boxes: Tensor | None  # top, bottom, left, right of what comes from the partner; none: all of it, blended


def draw(pictures: Pictures, augment: params.Augment, mix: params.Mix, seed: int, number: int) -> View:
    for_recipe, for_mix = np.random.SeedSequence((seed, number)).spawn(2)
    recipe = augmentation.recipe(augment, len(pictures), pictures.size, for_recipe, pictures.device)
    return MIXES[mix.name](mix, recipe, pictures, np.random.default_rng(for_mix))


def look(pictures: Pictures, view: View, raw: Tensor, partners: Tensor | None, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures and labels of these numbers; `raw` are theirs as they are stored, `partners` those of their partners."""
    labels = pictures.labels[chosen]
    images = batches.seen(pictures, raw, _of(view.recipe, chosen))
    if view.partners is None or view.shares is None or partners is None:
        return images, labels
    others = view.partners[chosen]
    blended = batches.seen(pictures, partners, _of(view.recipe, others))
    share = view.shares[chosen]
    if view.boxes is None:
        images = images * share[:, None, None, None] + blended * (1 - share)[:, None, None, None]
    else:
        images = torch.where(_inside(view.boxes[chosen], pictures.size), blended, images)
    certain = torch.eye(pictures.classes, device=labels.device)
    mixed = certain[labels] * share[:, None] + certain[pictures.labels[others]] * (1 - share)[:, None]
    return images.contiguous(memory_format=pictures.layout), mixed


def parts(pictures: Pictures, view: View, chosen: list[Tensor]) -> Generator[tuple[Tensor, Tensor]]:
    """Batch after batch of a view; `chosen` lie where the pictures lie."""
    own = batches.fetched(pictures, chosen)
    others: Iterable[Tensor | None] = [None] * len(chosen)
    if view.partners is not None:
        beside = view.partners.to(chosen[0].device)
        others = batches.fetched(pictures, [beside[numbers] for numbers in chosen])
    for numbers, raw, partners in zip(chosen, own, others, strict=True):
        yield look(pictures, view, raw, partners, numbers.to(pictures.device))


# ---------------------------------------------------------------------------------------------------- mixing


def unmixed(
    _settings: params.Unmixed, recipe: augmentation.Recipe, _pictures: Pictures, _generator: np.random.Generator
) -> View:
    return View(recipe, None, None, None)


def mixup(
    settings: params.Mixed, recipe: augmentation.Recipe, pictures: Pictures, generator: np.random.Generator
) -> View:
    partners = generator.permutation(len(pictures))
    shares = generator.beta(settings.alpha, settings.alpha, len(pictures)).astype(np.float32)
    return View(recipe, *(torch.from_numpy(values).to(pictures.device) for values in (partners, shares)), boxes=None)


def cutmix(
    settings: params.Mixed, recipe: augmentation.Recipe, pictures: Pictures, generator: np.random.Generator
) -> View:
    """A box anywhere, cut off at the picture's edges; a label's share is the area that is really there."""
    count, (height, width) = len(pictures), pictures.size
    partners, drawn = generator.permutation(count), generator.beta(settings.alpha, settings.alpha, count)
    sides = np.sqrt(1 - drawn)
    limits: list[np.ndarray] = []
    for length in (height, width):
        middle, reach = (generator.random(count) * length).astype(np.int64), (sides * length).astype(np.int64)
        low = middle - reach // 2
        limits += [np.maximum(low, 0), np.minimum(low + reach, length)]
    top, bottom, left, right = limits
    shares = (1 - (bottom - top) * (right - left) / (height * width)).astype(np.float32)
    values = partners, shares, np.stack(limits, axis=1)
    return View(recipe, *(torch.from_numpy(one).to(pictures.device) for one in values))


# As augmentation.MIXES, but with a partner and a share for each picture, whatever batch it comes in.
MIXES: Mapping[str, Callable[[Any, augmentation.Recipe, Pictures, np.random.Generator], View]] = {
    "none": unmixed,
    "mixup": mixup,
    "cutmix": cutmix,
}


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    top, bottom, left, right = boxes[:, :, None].unbind(1)
    rows, columns = (torch.arange(length, device=boxes.device) for length in size)
    return (((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :])[
        :, None
    ]


def _of(recipe: augmentation.Recipe, chosen: Tensor) -> augmentation.Recipe:
    return {name: values.index_select(0, chosen) for name, values in recipe.items()}
