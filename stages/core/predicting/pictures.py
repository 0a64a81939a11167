"""From a picture file of any kind to RGB pixels of one size."""

import hashlib
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm"}
MOST_PIXELS = 100_000_000  # a picture larger than this is refused rather than decoded
AT_ONCE = 250_000  # pixels that become RGB in one piece
ORIENTATION = 0x112  # of EXIF
ONE_PICTURE = {"MPO"}  # a camera's JPEG with a preview behind it
PROGRAMS = {"EPS"}  # Pillow would let Ghostscript run it
# whatever Pillow's readers raise at damaged headers and pixels
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)
Image.MAX_IMAGE_PIXELS = MOST_PIXELS


class Unreadable(Exception):
    """This is no picture that could be learnt from; the message says why."""


@dataclass(frozen=True)
class Picture:
    """Upright RGB, and the mode it was stored in."""

    image: Image.Image
    mode: str


def open_picture(path: str | os.PathLike[str]) -> Picture:
    """Nothing but a regular file is opened: a pipe would be waited for, forever."""
    path = Path(path)
    try:
        if path.is_file():
            return read(path)
        if path.exists():
            raise Unreadable("it is no file")
        raise Unreadable("it is a link that leads nowhere" if path.is_symlink() else "the file is not there")
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error


def read(path: Path) -> Picture:
    """Upright RGB, whatever the file held."""
    try:
        with Image.open(path) as picture:
            return from_pillow(picture)
    except UnidentifiedImageError as error:
        raise Unreadable("it is empty" if path.stat().st_size == 0 else "it is no picture of a known kind") from error
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or str(error).replace(str(path), "").strip(" '")
        raise Unreadable(reason or type(error).__name__) from error


def from_pillow(picture: Image.Image) -> Picture:
    """Nothing is decoded before it is known to be one picture of a sane size."""
    try:
        if picture.width * picture.height > MOST_PIXELS:
            raise Unreadable(f"{picture.width} x {picture.height} pixels: a decompression bomb")
        if not picture.width * picture.height:
            raise Unreadable("it has no pixels")
        if picture.format in PROGRAMS:
            raise Unreadable(f"{picture.format} is a program that draws, not a picture")
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format not in ONE_PICTURE:
            raise Unreadable(f"it holds {frames} pictures, not one")
        if picture.mode == "F":
            raise Unreadable("floating-point pixels have no agreed white")
        return Picture(to_rgb(upright(picture)), picture.mode)
    except DAMAGED as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise Unreadable(f"an array is uint8 RGB [height, width, 3], not {pixels.dtype} {list(pixels.shape)}")
    return Image.fromarray(pixels)


def upright(picture: Image.Image) -> Image.Image:
    """The same where nothing is to be turned: Pillow would copy it."""
    picture.load()
    return picture if picture.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(picture)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Piece by piece, so that a large picture of an odd kind takes little more memory than its RGB."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    made, rows = Image.new("RGB", picture.size), max(1, AT_ONCE // picture.width)
    for top in range(0, picture.height, rows):
        piece = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        made.paste(_to_rgb(piece), (0, top))
    return made


def _to_rgb(picture: Image.Image) -> Image.Image:
    """16-bit grey is scaled, not clipped; transparency lies on white."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def crop(picture: Image.Image, size: int) -> Image.Image:
    """The largest centred square."""
    return ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)


def pad(picture: Image.Image, size: int) -> Image.Image:
    """All of it, centred on black."""
    return ImageOps.pad(picture, (size, size), Image.Resampling.BICUBIC, color="black")


def stretch(picture: Image.Image, size: int) -> Image.Image:
    """All of it, its sides made equal."""
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def digest(picture: Image.Image) -> str:
    """Of the pixels, so that one picture in two lossless formats or under two names is known as one."""
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


# a fit gives, of RGB pixels of any size, RGB pixels of size x size, antialiased
FITS: Mapping[str, Callable[[Image.Image, int], Image.Image]] = {"crop": crop, "pad": pad, "stretch": stretch}
