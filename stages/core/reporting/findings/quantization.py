"""Which layers got how many bits, and what that cost."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.core import params
from stages.core.reporting.findings.base import Found
from stages.core.reporting.findings.learning import Against, Lesson


class Way(Found):
    """One of those that were tried to calibrate in."""

    range: params.Range
    equalize_iterations: int
    correct: Literal["moments", "bias", "nothing"]
    zero_points: bool


class Tried(Found):
    way: Way
    val_accuracy: float
    val_loss: float


class Choice(Found):
    """One layer at so many bits, all others as wide as they may be."""

    layer: str
    bits: params.WeightBits
    bytes: int
    val_loss: float
    val_accuracy: float


class RoundingError(Found):
    """Of a layer's answers, in squares, as a share of the answers' own squares."""

    nearest: float
    chosen: float


class FewBits(Found):
    """A layer; `levels` is the most that a channel takes."""

    bits: params.WeightBits
    weights: int
    levels: int
    zeros: float
    error: RoundingError | None


Rounder = Literal["float", "rounded"]


class Quantized(Found):
    """`alone` is val accuracy with nothing rounded but one place; `budget` counts all epochs. Only methods that leave
    layers in floating point tell `float_layers`."""

    method: str
    val_accuracy: float
    val_accuracy_before: float
    val_accuracy_calibrated: float
    val_agreement: float
    calibration_pictures: int
    zeros_before: float
    zeros: float
    weight_bytes: int
    tried: list[Tried]
    choices: list[Choice]
    alone: dict[str, float]
    layers: dict[str, FewBits] = Field(min_length=1)
    float_layers: list[str] = Field([])
    flows: dict[str, int]
    recovery: Lesson | None
    seeds: dict[str, dict[Literal["quantized"] | Rounder, float]]
    against: dict[Rounder, Against]
    budget: int
    confidence: float

    @model_validator(mode="after")
    def _controls_agree(self) -> Self:
        """Who learnt did so for every seed, and a control that did is judged."""
        learnt = {"quantized", *self.against}
        if any(one.keys() != learnt for one in self.seeds.values()):
            raise ValueError("seeds and against disagree who learnt beside the quantized network")
        if len({self.recovery is not None, bool(self.seeds), self.budget > 0}) > 1 or (self.against and not self.seeds):
            raise ValueError("recovery, seeds, against and budget disagree whether there was a lesson")
        return self
