"""From a picture file of any kind to RGB pixels of one size."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.core.running.errors import Refusal

Image.MAX_IMAGE_PIXELS = 100_000_000  # a picture larger than this is refused rather than decoded


def read(path: Path) -> Image.Image:
    """Upright RGB, whatever the file held."""
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or 0):
                raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels: a decompression bomb")
            if picture.mode == "F":
                raise ValueError("floating-point pixels have no agreed white")
            return to_rgb(ImageOps.exif_transpose(picture))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), "").strip(" '") or type(error).__name__
        raise Refusal(f"{path} cannot be read as a picture ({reason}): mend or remove it") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """16-bit grey is scaled, not clipped; transparency lies on white."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def square(picture: Image.Image, size: int) -> np.ndarray:
    """The largest centred square, antialiased to size x size."""
    return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def digest(picture: Image.Image) -> str:
    """Of the pixels, so that one picture in two lossless formats or under two names is known as one."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
