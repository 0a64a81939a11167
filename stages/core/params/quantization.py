"""In which numbers a network is stored and computed."""

from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from stages.core.params.base import NonNegative, Settings


def _bits(value: object) -> object:
    if value == "ternary" or (type(value) is int and 1 <= value <= 8):
        return value
    raise ValueError("1 to 8 bits, or ternary")


WeightBits = Annotated[int | Literal["ternary"], BeforeValidator(_bits)]
ActivationBits = Annotated[int, Field(ge=2, le=8)]


class Extremes(Settings):
    """From the smallest to the largest number seen."""

    name: Literal["minmax"]


class Percentile(Settings):
    """So much of all numbers seen; the others are clipped."""

    name: Literal["percentile"]
    percentile: Annotated[float, Field(gt=50, lt=100)]


class SquaredError(Settings):
    """The range whose rounding and clipping together err least, in squares."""

    name: Literal["mse"]


class Entropy(Settings):
    """The range that leaves the distribution as it was, by Kullback and Leibler (Migacz 2017)."""

    name: Literal["entropy"]


Range = Annotated[Extremes | Percentile | SquaredError | Entropy, Field(discriminator="name")]


class Nearest(Settings):
    """Each weight to the code next to it."""

    name: Literal["nearest"]


class AdaRound(Settings):
    """Up or down, as it is learnt that the layer's answers change least (Nagel et al. 2020)."""

    name: Literal["adaround"]
    iterations: PositiveInt


class GPTQ(Settings):
    """Column by column; what is rounded away is made up for by the columns that follow (Frantar et al. 2023)."""

    name: Literal["gptq"]
    damping: PositiveFloat


class GPFQ(Settings):
    """Column by column along the path of the layer's answers (Lybrand and Saab 2021, Zhang and Saab 2023).

    `threshold`, in steps of the grid, makes small weights zero: `l1` draws all others as far, `l0` leaves them.
    """

    name: Literal["gpfq"]
    penalty: Literal["l1", "l0"]
    threshold: NonNegative
    stochastic: bool


Rounding = Annotated[Nearest | AdaRound | GPTQ | GPFQ, Field(discriminator="name")]


class Bytes(Settings):
    """Of all weights, codes and scales, as they are stored."""

    name: Literal["bytes"]
    at_most: PositiveInt


class Drop(Settings):
    """Of accuracy on val, against the network in floating point."""

    name: Literal["drop"]
    at_most: NonNegative


class Auto(Settings):
    """Bits for each layer, by what it bears: as few as a budget asks, or as many."""

    choices: Annotated[tuple[WeightBits, ...], Field(strict=False, min_length=2)]
    budget: Annotated[Bytes | Drop, Field(discriminator="name")]

    @model_validator(mode="after")
    def _falling(self) -> Self:
        widths = [width(bits) for bits in self.choices]
        if widths != sorted(set(widths), reverse=True):
            raise ValueError(f"choices {list(self.choices)}: numbers of bits, falling, each once")
        return self


class Integer(Settings):
    """Integer weights with a scale for each channel (or tensor), integer activations with one for each tensor.

    The first and the last layer have `ends` bits, layers under `layers` those that stand there, all others `weights`;
    what is under `keep` stays in floating point. `activations` are the bits of what flows between layers. The mean of
    each channel is put right (`bias`), or its spread, too (`moments`).
    """

    name: Literal["integer"]
    weights: Annotated[
        Annotated[WeightBits, Tag("bits")] | Annotated[Auto, Tag("auto")],
        Discriminator(lambda value: "auto" if isinstance(value, dict | Auto) else "bits"),
    ]
    activations: ActivationBits
    ends: Annotated[int, Field(ge=2, le=8)]
    layers: dict[str, WeightBits]
    keep: Annotated[tuple[str, ...], Field(strict=False)]
    scales: Literal["channel", "tensor"]
    zero_points: bool
    range: Range
    rounding: Rounding
    equalize_iterations: NonNegativeInt
    correct: Literal["moments", "bias", "nothing"]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.correct == "moments" and self.scales == "tensor":
            raise ValueError(
                "correct moments gives each channel a scale of its own; set scales to channel or correct to bias"
            )
        return self


class DynamicInt8(Settings):
    """Linear layers with int8 weights, whose inputs find their range anew at every call."""

    name: Literal["dynamic_int8"]
    scales: Literal["channel", "tensor"]


class Half(Settings):
    """Weights in 16 bits, computed in float32."""

    name: Literal["float16", "bfloat16"]


class Float8(Settings):
    """Weights in 8 bits of floating point with a scale for each channel, computed in float32."""

    name: Literal["float8"]
    format: Literal["e4m3", "e5m2"]


Quantization = Annotated[Integer | DynamicInt8 | Half | Float8, Field(discriminator="name")]


class Ladder(Settings):
    """Widths that are learnt before the last one, `epochs` each, from the widest down."""

    weights: Annotated[tuple[WeightBits, ...], Field(strict=False)]
    epochs: PositiveInt

    @model_validator(mode="after")
    def _falling(self) -> Self:
        widths = [width(bits) for bits in self.weights]
        if widths != sorted(set(widths), reverse=True):
            raise ValueError(f"ladder {list(self.weights)}: numbers of bits, falling, each once")
        return self


def width(bits: WeightBits) -> float:
    """Three levels are more than one bit can tell, and fewer than two can."""
    return 1.5 if bits == "ternary" else float(bits)
