"""What a network can lose, and by what it is chosen."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

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


Importance = Annotated[
    Magnitude | GroupNorm | BatchNormScale | LAMP | GeometricMedian | Taylor | Hessian | Random,
    Field(discriminator="name"),
]
