"""Pictures of pictures, large enough to see."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

WIDE = 128  # pixels, at least
COLOUR = "red"
STRONGEST = 0.7  # of the colour, where a network looks most


def enlarged(pixels: np.ndarray) -> Image.Image:
    """By a whole number: each pixel stays a square."""
    times = math.ceil(WIDE / pixels.shape[1])
    return Image.fromarray(pixels).resize((pixels.shape[1] * times, pixels.shape[0] * times), Image.Resampling.NEAREST)


def heated(pixels: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Grey, and coloured where the heat is; `heat` is from 0 to 1 and may have fewer rows."""
    picture = enlarged(pixels)
    mask = Image.fromarray((heat * STRONGEST * 255).round().astype(np.uint8))
    mask = mask.resize(picture.size, Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", picture.size, COLOUR), picture.convert("L").convert("RGB"), mask)


def save(folder: Path, number: int, picture: Image.Image, of: str = "") -> None:
    picture.save(folder / f"{number:06}{of and f'-{of}'}.png")
