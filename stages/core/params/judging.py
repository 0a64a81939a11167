"""How networks are judged."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from stages.core.params.base import ProperFraction, Settings


def _rising(amounts: Sequence[float]) -> Sequence[float]:
    return _ordered(amounts, sorted(set(amounts)), "rising")


def _falling(amounts: Sequence[float]) -> Sequence[float]:
    return _ordered(amounts, sorted(set(amounts), reverse=True), "falling")


def _ordered(amounts: Sequence[float], expected: Sequence[float], word: str) -> Sequence[float]:
    if list(amounts) != expected:
        raise ValueError(f"{list(amounts)}: {word} amounts, each once, since a higher severity spoils more")
    return amounts


class Robustness(Settings):
    """Amounts by severity; without any it is not measured. `noise` is the standard deviation where white is 1, `blur`
    the standard deviation as a share of the picture's side, `contrast` the share that is left, `jpeg` the quality.
    """

    noise: Annotated[tuple[ProperFraction, ...], Field(strict=False), AfterValidator(_rising)]
    blur: Annotated[tuple[Annotated[float, Field(gt=0, le=0.25)], ...], Field(strict=False), AfterValidator(_rising)]
    contrast: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(strict=False), AfterValidator(_falling)]
    jpeg: Annotated[tuple[Annotated[int, Field(ge=1, le=100)], ...], Field(strict=False), AfterValidator(_falling)]

    def measured(self) -> Mapping[str, Sequence[float]]:
        return {kind: amounts for kind, amounts in self if amounts}


class Evaluate(Settings):
    """`top` answers may hold the right one, `examples` test pictures are kept for the report, and `attention` of those
    on which teacher and student disagree are kept with what each of them looked at.
    """

    confidence: ProperFraction
    calibration_bins: Annotated[int, Field(ge=2, le=100)]
    top: PositiveInt
    examples: NonNegativeInt
    robustness: Robustness
    attention: NonNegativeInt
