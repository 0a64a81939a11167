"""What happens to pictures outside: noise, blur, poor contrast, compression (Hendrycks and Dietterich 2019).

A corruption takes uint8 pictures, an amount and the pictures' numbers, and gives uint8 pictures. It is that of a
picture, whatever batch it comes in.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

Corruption = Callable[[Tensor, float, Tensor, int], Tensor]
REACH = 3  # standard deviations that a blur's kernel covers, either way


def noise(images: Tensor, amount: float, numbers: Tensor, seed: int) -> Tensor:
    """Normal, of this standard deviation, where white is 1; a picture has the same noise at any amount, only more."""
    drawn = [np.random.default_rng((seed, n)).standard_normal(images.shape[1:], np.float32) for n in numbers.tolist()]
    added = torch.from_numpy(np.stack(drawn)).to(images.device) * (255 * amount)
    return (images + added).round_().clamp_(0, 255).to(torch.uint8)


def blur(images: Tensor, amount: float, _numbers: Tensor, _seed: int) -> Tensor:
    """Gaussian, with a standard deviation that is a share of the picture's side: in pixels, one that leaves a large
    picture as it was would wipe out a small one."""
    deviation = amount * images.shape[-1]
    width = 2 * math.ceil(REACH * deviation) + 1
    return functional.gaussian_blur(images, [width, width], [deviation, deviation])


def contrast(images: Tensor, amount: float, _numbers: Tensor, _seed: int) -> Tensor:
    """This share of it is left, around the picture's own mean."""
    return functional.adjust_contrast(images, amount)


def jpeg(images: Tensor, amount: float, _numbers: Tensor, _seed: int) -> Tensor:
    """Of this quality. Its blocks are 8 pixels at any size, and so worth more of a small picture."""
    return functional.jpeg(images.cpu(), round(amount)).to(images.device)


CORRUPTIONS: Mapping[str, Corruption] = {"noise": noise, "blur": blur, "contrast": contrast, "jpeg": jpeg}
UNTOUCHED: Mapping[str, float] = {"noise": 0, "blur": 0, "contrast": 1, "jpeg": 100}  # amounts that change nothing
