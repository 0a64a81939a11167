"""Pictures as people have them, and what a network says of each."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from . import ahead, pictures
from .describing import Description
from .errors import Unusable
from .pictures import Unreadable

Asked = str | os.PathLike[str] | Image.Image | np.ndarray
Logits = Callable[[np.ndarray], np.ndarray]  # uint8 [n, size, size, 3] -> [n, classes]
BATCH = 32


@dataclass(frozen=True, eq=False)
class Answer:
    """`ranked` are the likeliest classes, each with its probability; where there is a `problem`, there are none."""

    asked: Any
    ranked: tuple[tuple[str, float], ...] = ()
    probabilities: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    problem: str = ""

    @property
    def name(self) -> str:
        """Of the likeliest class."""
        return self.ranked[0][0]

    @property
    def probability(self) -> float:
        return self.ranked[0][1]


class Classifier:
    """`batch` is how many pictures at a time are quick to ask about."""

    def __init__(self, file: str, description: Description, logits: Logits, batch: int = BATCH) -> None:
        self.file, self.description = file, description
        self.classes, self.image_size, self.fit = description.classes, description.image_size, description.fit
        self.batch = batch
        self._logits = logits

    def classify(self, asked: Asked | Iterable[Asked], top: int = 1) -> list[Answer]:
        """Paths, Pillow's pictures, or uint8 RGB [height, width, 3] of any size; one alone is one answer.

        Raises Unreadable for a picture that cannot be read.
        """
        alone = isinstance(asked, str | os.PathLike | Image.Image) or (isinstance(asked, np.ndarray) and asked.ndim < 4)
        answers: list[Answer] = []
        for answer in self.answers([asked] if alone else asked, top):  # pyright: ignore[reportArgumentType]
            if answer.problem:
                raise Unreadable(f"{_named(answer.asked)}: {answer.problem}")
            answers.append(answer)
        return answers

    def answers(self, asked: Iterable[Asked], top: int = 1, batch: int | None = None) -> Iterator[Answer]:
        """In order, as they come; a picture that cannot be read is answered with the problem."""
        for found in ahead.batches(asked, self.pixels, batch or self.batch):
            readable = [pixels for _, pixels in found if isinstance(pixels, np.ndarray)]
            chances = iter(self.probabilities(np.stack(readable)) if readable else ())
            for one, pixels in found:
                if isinstance(pixels, Unreadable):
                    yield Answer(one, problem=str(pixels))
                else:
                    yield self._ranked(one, next(chances), top)

    def pixels(self, asked: Asked) -> np.ndarray:
        """As the network wants them."""
        if isinstance(asked, np.ndarray):
            picture = pictures.from_array(asked)
        elif isinstance(asked, Image.Image):
            picture = pictures.from_pillow(asked).image
        else:
            picture = pictures.open_picture(asked).image
        return np.asarray(pictures.FITS[self.fit](picture, self.image_size))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Of uint8 RGB [n, size, size, 3], float32 [n, classes]."""
        size = self.image_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise Unusable(f"pictures are uint8 [n, {size}, {size}, 3] here, not {images.dtype} {list(images.shape)}")
        if not len(images):
            return np.empty((0, len(self.classes)), np.float32)
        parts = np.split(images, len(images)) if self.description.one_by_one else [images]
        return softmax(np.concatenate([self._answered(part) for part in parts]))

    def _answered(self, images: np.ndarray) -> np.ndarray:
        logits = np.asarray(self._logits(np.ascontiguousarray(images)))
        if logits.shape != (len(images), len(self.classes)):
            raise Unusable(
                f"{self.file} names {len(self.classes)} classes, and answers {len(images)} pictures with numbers of "
                f"the shape {list(logits.shape)}"
            )
        if not np.isfinite(logits).all():
            raise Unusable(f"{self.file} answers with what is no number")
        return logits

    def _ranked(self, asked: Asked, chances: np.ndarray, top: int) -> Answer:
        order = np.argsort(-chances, kind="stable")[:top]
        return Answer(asked, tuple((self.classes[at], float(chances[at])) for at in order), chances)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def _named(asked: Asked) -> str:
    return os.fspath(asked) if isinstance(asked, str | os.PathLike) else f"a picture of the kind {type(asked).__name__}"
