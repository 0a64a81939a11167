"""Bytes become pixels as the network wants them, by the code that made its pictures fit; threads do it."""

# pyright: reportMissingImports=false

import asyncio
import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from lightvision_runner.classifying import Classifier
from lightvision_runner.pictures import DAMAGED, Unreadable
from PIL import Image, UnidentifiedImageError

from .problems import BUSY, Problem
from .settings import Settings

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # no reader that would call other programs
warnings.simplefilter("error", Image.DecompressionBombWarning)  # larger than any that could be allowed


class Decoder:
    """A thread cannot be stopped: one whose time is over goes on to its end, and keeps its place in the pool."""

    def __init__(self, model: Classifier, settings: Settings) -> None:
        self._model, self._settings = model, settings
        self._pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")

    async def decoded(self, pictures: Sequence[bytes]) -> list[np.ndarray]:
        loop = asyncio.get_running_loop()
        work = [loop.run_in_executor(self._pool, self._pixels, number, held) for number, held in enumerate(pictures)]
        try:
            async with asyncio.timeout(self._settings.decode_seconds):
                return await asyncio.gather(*work)
        except TimeoutError:
            raise Problem(BUSY, f"decoding took longer than {self._settings.decode_seconds:g} seconds") from None
        finally:
            for one in work:
                one.cancel()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _pixels(self, number: int, held: bytes) -> np.ndarray:
        """The size stands in a picture's first bytes, so that none is decoded which is too large."""
        try:
            with Image.open(io.BytesIO(held), formats=KINDS) as picture:
                if picture.width * picture.height > self._settings.pixels:
                    size = f"{picture.width} x {picture.height}"
                    raise Problem(413, f"picture {number}: {size} pixels, more than {self._settings.pixels:,}")
                return self._model.pixels(picture)
        except UnidentifiedImageError:
            raise Problem(415, f"picture {number}: of no known kind ({', '.join(KINDS)})") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise Problem(413, f"picture {number}: more than {self._settings.pixels:,} pixels") from None
        except (Unreadable, *DAMAGED) as error:
            raise Problem(422, f"picture {number}: {error}") from None
