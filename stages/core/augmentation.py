"""Whatever may be done to a training picture, for whole batches on the device and with no Python per picture.

What happens to the picture at a place of an epoch's order follows from the seed and the epoch's number alone: one table
is drawn for the epoch, with the same columns whatever is switched on, and moved to the device at once. So neither the
batch size nor the device changes a draw, and switching one thing on changes no other thing's draws.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.core import params

Recipe = Mapping[str, Tensor]  # what is on, by name, with a row for each place of the epoch's order
Draws = Mapping[str, np.ndarray]

COLUMNS = (
    *("mirror", "flip", "rows", "columns", "rotate", "area", "aspect", "top", "left"),
    *("brightness", "contrast", "saturation", "hue"),
    *("erase", "erase_area", "erase_aspect", "erase_top", "erase_left"),
)
GREY = (0.2989, 0.587, 0.114)  # as torchvision weighs colours
CHROMA = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # RGB to YIQ
ERASED_AREA, ERASED_ASPECT = (0.02, 0.33), (0.3, 3.3)  # Zhong et al. 2020


def recipe(
    augment: params.Augment, count: int, size: tuple[int, int], entropy: np.random.SeedSequence, device: torch.device
) -> Recipe:
    """An epoch's table for `count` pictures of `size` rows and columns."""
    numbers = np.random.default_rng(entropy).random((count, len(COLUMNS)))
    draws = dict(zip(COLUMNS, numbers.T, strict=True))
    found = _geometry(augment, draws, size)
    for name in ("brightness", "contrast", "saturation"):
        reach = getattr(augment, name)
        if reach:
            found[name] = (1 + _either_way(draws[name], reach))[:, None, None, None]
    if augment.hue:
        found["hue"] = _hues(_either_way(draws["hue"], 2 * math.pi * augment.hue))
    if augment.erase:
        found["box"] = _boxes(augment.erase, draws, size)
    return {name: _tensor(values).to(device) for name, values in found.items()}


def part(whole: Recipe, rows: slice) -> Recipe:
    return {name: values[rows] for name, values in whole.items()}


def seen(images: Tensor, how: Recipe) -> Tensor:
    """From uint8 N x H x W x 3 to N x 3 x H x W: uint8 still if pixels only move by whole steps, else from 0 to 1."""
    if "affine" in how:
        images = _resampled(images.permute(0, 3, 1, 2).float().div_(255), how["affine"])
    else:
        images = _moved(images, how).permute(0, 3, 1, 2)
    return _recoloured(images, how) if how.keys() & {"brightness", "contrast", "saturation", "hue"} else images


def erase(images: Tensor, how: Recipe) -> None:
    """Normalised pictures lose their boxes, in place; there the mean of the training pictures is zero."""
    if "box" in how:
        top, left, bottom, right = how["box"][:, :, None].unbind(1)
        rows, columns = (torch.arange(length, device=images.device) for length in images.shape[2:])
        inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
        images.mul_(~inside[:, None])


# ------------------------------------------------------------------------------------------------ geometry


def _geometry(augment: params.Augment, draws: Draws, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Whole steps stay whole steps, exact; with a crop or a rotation all becomes one affine map for each picture."""
    steps = np.stack([_steps(draws[name], augment.shift) for name in ("rows", "columns")], axis=1)
    turned = np.stack([augment.flip & (draws["flip"] < 0.5), augment.mirror & (draws["mirror"] < 0.5)], axis=1)
    if augment.rotate or augment.crop < 1:
        return {"affine": _affine(augment, draws, steps, turned, size)}
    moves = augment.shift or augment.mirror or augment.flip
    return {"steps": steps, "turned": turned} if moves else {}


def _affine(
    augment: params.Augment, draws: Draws, steps: np.ndarray, turned: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Where each pixel comes from, as torch's affine_grid has it: a picture spans -1 to 1 both ways.

    A box inside the picture, `area` of it large, of any aspect that fits; turned about its own middle, then shifted.
    """
    area = augment.crop + (1 - augment.crop) * draws["area"]
    aspect = np.minimum(augment.stretch, 1 / area) ** _either_way(draws["aspect"], 1)
    tall, wide = np.sqrt(area / aspect), np.sqrt(area * aspect)
    middle_y = _either_way(draws["top"], 1) * (1 - tall) + 2 * steps[:, 0] / size[0]
    middle_x = _either_way(draws["left"], 1) * (1 - wide) + 2 * steps[:, 1] / size[1]
    tall, wide = np.where(turned[:, 0], -tall, tall), np.where(turned[:, 1], -wide, wide)
    angle = np.radians(_either_way(draws["rotate"], augment.rotate))
    cosine, sine, shape = np.cos(angle), np.sin(angle), size[0] / size[1]
    rows = (cosine * wide, -sine * tall * shape, middle_x, sine * wide / shape, cosine * tall, middle_y)
    return np.stack(rows, axis=1).reshape(-1, 2, 3)


def _resampled(images: Tensor, affine: Tensor) -> Tensor:
    """Bilinear; whatever comes from outside repeats the border. A crop only enlarges, so nothing aliases.

    The grid is affine_grid's, put together from its rows and columns: a tenth of the time on a CPU.
    """
    height, width = images.shape[2:]
    across = _middles(width, images.device) * affine[:, :, :1] + affine[:, :, 2:]
    down = _middles(height, images.device) * affine[:, :, 1:2]
    grid = (across[:, :, None, :] + down[:, :, :, None]).permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _middles(length: int, device: torch.device) -> Tensor:
    return (torch.arange(length, device=device) * 2 + 1) / length - 1


def _moved(images: Tensor, how: Recipe) -> Tensor:
    """Shifted, mirrored and flipped by whole pixels; what is shifted in repeats the border."""
    if "steps" not in how:
        return images
    count, height, width, _ = images.shape
    rows, columns = (
        _window(length, how["steps"][:, at], how["turned"][:, at]) for at, length in enumerate((height, width))
    )
    first = torch.arange(count, device=images.device)[:, None] * height
    chosen = ((first + rows) * width)[:, :, None] + columns[:, None, :]
    return images.reshape(-1, 3).index_select(0, chosen.view(-1)).view(images.shape)


def _window(length: int, steps: Tensor, turned: Tensor) -> Tensor:
    places = (torch.arange(length, device=steps.device) + steps[:, None]).clamp(0, length - 1)
    return torch.where(turned[:, None], places.flip(1), places)


# -------------------------------------------------------------------------------------------------- colour


def _recoloured(images: Tensor, how: Recipe) -> Tensor:
    """Brightness, contrast and saturation as torchvision defines them, then hue; always in this order."""
    if not images.is_floating_point():
        images = images.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    weights = torch.tensor(GREY, device=images.device)
    if "brightness" in how:
        images.mul_(how["brightness"]).clamp_(0, 1)
    if "contrast" in how:
        middle = (images.mean(dim=(2, 3)) @ weights)[:, None, None, None]
        images.mul_(how["contrast"]).add_(middle * (1 - how["contrast"])).clamp_(0, 1)
    if "saturation" in how:
        grey = (weights @ images.flatten(2)).view(len(images), 1, *images.shape[2:])
        images.mul_(how["saturation"]).add_(grey.mul_(1 - how["saturation"])).clamp_(0, 1)
    if "hue" in how:
        images = torch.bmm(how["hue"], images.flatten(2)).view(images.shape).clamp_(0, 1)
    return images


def _hues(angles: np.ndarray) -> np.ndarray:
    """Turns the chroma plane of YIQ, one matrix for each picture. That is not the hue of HSV, and much cheaper."""
    turns = np.zeros((len(angles), 3, 3))
    turns[:, 0, 0] = 1
    turns[:, 1, 1] = turns[:, 2, 2] = np.cos(angles)
    turns[:, 1, 2], turns[:, 2, 1] = -np.sin(angles), np.sin(angles)
    return np.linalg.inv(CHROMA) @ turns @ CHROMA


# ------------------------------------------------------------------------------------------- boxes, draws


def _boxes(share: float, draws: Draws, size: tuple[int, int]) -> np.ndarray:
    """Top, left, bottom, right; empty for the pictures that keep all. The aspect is one that fits the picture."""
    height, width = size
    least, most = ERASED_AREA
    area = (least + (most - least) * draws["erase_area"]) * height * width
    low, high = np.maximum(ERASED_ASPECT[0], area / width**2), np.minimum(ERASED_ASPECT[1], height**2 / area)
    aspect = low * (high / low) ** draws["erase_aspect"]
    tall = np.clip(np.rint(np.sqrt(area * aspect)), 1, height)
    wide = np.clip(np.rint(np.sqrt(area / aspect)), 1, width)
    top, left = (draws["erase_top"] * (height - tall + 1)) // 1, (draws["erase_left"] * (width - wide + 1)) // 1
    boxes = np.stack([top, left, top + tall, left + wide], axis=1).astype(np.int64)
    return np.where((draws["erase"] < share)[:, None], boxes, 0)


def _either_way(draws: np.ndarray, reach: float) -> np.ndarray:
    return (2 * draws - 1) * reach


def _steps(draws: np.ndarray, reach: int) -> np.ndarray:
    return np.floor(draws * (2 * reach + 1)).astype(np.int64) - reach


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32) if values.dtype == np.float64 else values)


# -------------------------------------------------------------------------------------------------- mixing


def unmixed(
    _settings: params.Unmixed, images: Tensor, labels: Tensor, _classes: int, _generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    return images, labels


def mixup(
    settings: params.Mixed, images: Tensor, labels: Tensor, classes: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Zhang et al. 2018: pictures and labels are blended, each with the one before it in the shuffled batch."""
    share = generator.beta(settings.alpha, settings.alpha)
    others = images.roll(1, 0)
    return images.mul_(share).add_(others, alpha=1 - share), _shared(labels, classes, share)


def cutmix(
    settings: params.Mixed, images: Tensor, labels: Tensor, classes: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Yun et al. 2019: a box, anywhere, of the picture before; a label's share is the area that is really there."""
    height, width = images.shape[2:]
    side = math.sqrt(1 - generator.beta(settings.alpha, settings.alpha))
    rows, columns = (_stretch_of(length, side, generator.random()) for length in (height, width))
    images[:, :, rows, columns] = images[:, :, rows, columns].roll(1, 0)
    share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return images, _shared(labels, classes, share)


def _stretch_of(length: int, side: float, where: float) -> slice:
    """About a middle anywhere, cut off at the picture's edges."""
    middle, reach = int(where * length), int(side * length)
    return slice(max(0, middle - reach // 2), min(length, middle - reach // 2 + reach))


def _shared(labels: Tensor, classes: int, share: float) -> Tensor:
    own = (labels[:, None] == torch.arange(classes, device=labels.device)).float()
    return own * share + own.roll(1, 0) * (1 - share)


# A normalised batch (changed in place), int64 labels, how many classes there are and a generator
# give the batch and its labels: int64 still, or probabilities N x classes.
MIXES: Mapping[str, Callable[[Any, Tensor, Tensor, int, np.random.Generator], tuple[Tensor, Tensor]]] = {
    "none": unmixed,
    "mixup": mixup,
    "cutmix": cutmix,
}
