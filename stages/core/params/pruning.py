"""What a network can lose, and by what it is chosen."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from stages.core.params.base import Settings


class Magnitude(Settings):
    """Norm of a channel's own filter (Li et al. 2017)."""

    name: Literal["l1", "l2"]


class GroupNorm(Settings):
    """L2 norm of a channel's weights in all layers that must shrink together (Fang et al. 2023)."""

    name: Literal["group_norm"]


class BatchNormScale(Settings):
    """What BatchNorm multiplies a channel by (Liu et al. 2017); groups without one keep their channels."""

    name: Literal["bn_scale"]


class LAMP(Settings):
    """Group norms as a share of those that would be left with them (Lee et al. 2021)."""

    name: Literal["lamp"]


class GeometricMedian(Settings):
    """Distance to all other filters of the layer: those in the middle can be replaced (He et al. 2019)."""

    name: Literal["fpgm"]


class Taylor(Settings):
    """How much the loss on so many calibration pictures changes, to first order (Molchanov et al. 2019)."""

    name: Literal["taylor"]
    pictures: PositiveInt


class Hessian(Settings):
    """To second order, by squared gradients picture by picture (optimal brain damage, LeCun et al. 1989)."""

    name: Literal["hessian"]
    pictures: PositiveInt


class Random(Settings):
    """The control that every importance must beat."""

    name: Literal["random"]


class Size(Settings):
    """A weight's distance from zero."""

    name: Literal["magnitude"]


class SNIP(Settings):
    """How much the loss on so many calibration pictures feels a weight, to first order (Lee et al. 2019)."""

    name: Literal["snip"]
    pictures: PositiveInt


Importance = Annotated[
    Magnitude | GroupNorm | BatchNormScale | LAMP | GeometricMedian | Taylor | Hessian | Random,
    Field(discriminator="name"),
]
WeightImportance = Annotated[Size | LAMP | SNIP | Random, Field(discriminator="name")]


class Scattered(Settings):
    """Zeros wherever weights matter least: `share` of all weights of convolutions and linear layers."""

    name: Literal["scattered"]
    share: Annotated[float, Field(ge=0, lt=1)]
    importance: WeightImportance
    ranking: Literal["global", "layerwise"]


class Pattern(Settings):
    """Of each `of` neighbouring inputs of an output `keep` stay, as kernels for N:M sparsity want it."""

    name: Literal["pattern"]
    keep: PositiveInt
    of: Annotated[int, Field(ge=2, le=64)]
    importance: WeightImportance

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if self.keep >= self.of:
            raise ValueError(f"keep {self.keep} of {self.of} removes nothing: keep fewer")
        return self


Zeros = Annotated[Scattered | Pattern, Field(discriminator="name")]


class Lasso(Settings):
    """Training that draws whole channels to zero: each step takes rate x strength of a channel's root mean square."""

    epochs: PositiveInt
    strength: PositiveFloat
