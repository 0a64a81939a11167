"""A Gradle project: an app that answers on the phone, and measures it."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lightvision.bundles import laying, manifest
from lightvision.bundles.winner import Checks, Winner
from stages.core.predicting import pictures
from stages.core.running import files

ASSETS = Path("app/src/main/assets")
FIXTURES = Path("app/src/test/resources/pixels.txt")
SIZES = ((13, 9), (9, 13), (40, 3), (3, 40), (24, 24), (5, 70), (20, 32), (20, 38))  # of pictures, odd, long and tall
SQUARES = (8, 24, 33)
ORIENTATION = 0x112  # the tag of EXIF


def make(winner: Winner, folder: Path) -> None:
    laying.lay("android", winner, folder)
    assets = folder / ASSETS
    assets.mkdir()
    shutil.copy(winner.file, assets / "model.onnx")
    told = manifest.of("android", winner, folder)
    files.write_json(assets / manifest.FILE, {name: value for name, value in told.items() if name != "files"})
    _check(winner.checks, assets)
    (folder / FIXTURES).parent.mkdir(parents=True)
    (folder / FIXTURES).write_text("".join(f"{line}\n" for line in fixtures()), encoding="ascii")


def _check(checks: Checks, assets: Path) -> None:
    """Pictures as bytes one behind the other, and what the file answers here."""
    (assets / "checks.bin").write_bytes(checks.images.tobytes())
    files.write_json(assets / "checks.json", np.asarray(checks.probabilities, np.float64).tolist())


def fixtures() -> Iterator[str]:
    """What this Pillow makes of random pictures, for the project's own tests."""
    random = np.random.default_rng(0)
    for width, height in SIZES:
        for size in SQUARES:
            pixels = random.integers(0, 2, (height, width, 4)) * 255  # overshoot is cut off at black and white
            pixels[..., 3] = random.integers(0, 256, (height, width))
            picture = Image.fromarray(pixels.astype(np.uint8))
            for fit, fitted in pictures.FITS.items():
                if fit != "pad" or size * min(width, height) / max(width, height) > 0.5:
                    yield _line(fit.upper(), picture, size, fitted(pictures.to_rgb(picture), size))
    picture = Image.fromarray(random.integers(0, 256, (5, 7, 3)).astype(np.uint8)).convert("RGBA")
    for tag in range(1, 9):
        picture.getexif()[ORIENTATION] = tag
        yield _line("TURN", picture, tag, ImageOps.exif_transpose(picture).convert("RGB"))


def _line(kind: str, picture: Image.Image, given: int, expected: Image.Image) -> str:
    pixels, found = (base64.b64encode(image.tobytes()).decode() for image in (picture, expected))
    return f"{kind} {picture.width} {picture.height} {given} {pixels} {found}"
