"""Pictures, made small and carried inside the page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

LARGEST = 96  # pixels of a side that are embedded
SMALL = 40  # a picture with no side above it is shown pixel by pixel


@dataclass(frozen=True)
class Tile:
    """A picture to show, uint8 height x width x 3, and what it is."""

    image: np.ndarray
    caption: str

    @property
    def source(self) -> str:
        """The picture as a PNG that needs no file."""
        picture = Image.fromarray(np.ascontiguousarray(self.image))
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        picture.save(stream, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"

    @property
    def small(self) -> bool:
        return max(self.image.shape[:2]) <= SMALL
