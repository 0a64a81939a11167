"""Which network. `stem` is what sees the pictures first: the usual one halves them twice, the small one not at all."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.core.params.base import Settings

Stem = Literal["auto", "small", "imagenet"]
Width = Annotated[float, Field(ge=0.125, le=2)]
SHUFFLENET_WIDTHS = (0.5, 1.0, 1.5, 2.0)


class ResidualCNN(Settings):
    """A small residual network; each second block doubles the channels and halves the picture."""

    name: Literal["residual_cnn"]
    blocks: Annotated[int, Field(ge=2, le=16)]
    hidden_layers: Annotated[int, Field(ge=0, le=3)]


class ResNet9(Settings):
    """A few wide layers for small pictures, known from speed contests on CIFAR-10."""

    name: Literal["resnet9"]
    width: Width


class ResNet(Settings):
    """He et al. 2015; `auto` takes the small stem up to 64 pixels."""

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    stem: Stem
    width: Width


class ResNetForCIFAR(Settings):
    """He et al. 2015, section 4.2: three stages of narrow blocks for small pictures."""

    name: Literal["resnet20", "resnet56", "resnet110"]
    width: Width


class Mobile(Settings):
    name: Literal["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"]
    stem: Stem
    width: Width


class ShuffleNet(Settings):
    """In the four widths of its paper."""

    name: Literal["shufflenet_v2"]
    stem: Stem
    width: Width

    @model_validator(mode="after")
    def _published(self) -> Self:
        if self.width not in SHUFFLENET_WIDTHS:
            raise ValueError(f"width {self.width} is none of {', '.join(map(str, SHUFFLENET_WIDTHS))}")
        return self


class EfficientNet(Settings):
    """Its letters and numbers are its widths."""

    name: Literal["efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s"]
    stem: Stem


class ViT(Settings):
    """`patch: 0` takes the largest of 16, 8, 4 and 2 pixels that leaves 8 x 8 patches."""

    name: Literal["vit_tiny", "vit_small", "vit_base"]
    patch: Annotated[int, Field(ge=0, le=32)]


class Timm(Settings):
    """Any network of timm; `options` go to its constructor as they are."""

    name: Literal["timm"]
    model: Annotated[str, Field(min_length=1)]
    options: dict[str, bool | int | float | str]


class Torchvision(Settings):
    """Any classifier of torchvision; `options` go to its constructor as they are."""

    name: Literal["torchvision"]
    model: Annotated[str, Field(min_length=1)]
    options: dict[str, bool | int | float | str]


One = ResidualCNN | ResNet9 | ResNet | ResNetForCIFAR | Mobile | ShuffleNet | EfficientNet | ViT | Timm | Torchvision
Member = Annotated[One, Field(discriminator="name")]


class Ensemble(Settings):
    """The mean of its members' logits; each member learns by itself."""

    name: Literal["ensemble"]
    members: Annotated[tuple[Member, ...], Field(min_length=2, strict=False)]


class AsTeacher(Settings):
    """The teacher itself goes on as it is, and is what gets pruned."""

    name: Literal["teacher"]


Network = Annotated[One | Ensemble, Field(discriminator="name")]
Student = Annotated[One | AsTeacher, Field(discriminator="name")]
