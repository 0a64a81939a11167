"""Which pictures, how they are split, and what may be done to them in training."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, model_validator

from stages.core.params.base import Fraction, ProperFraction, Settings


class Digits(Settings):
    """The 1,797 handwritten digits that scikit-learn carries: they need no path."""

    name: Literal["digits"]
    path: None


Location = Annotated[str, Field(min_length=1)]


class Known(Settings):
    """A public data set by its name; `path` is a local copy in any of its usual layouts, null fetches it."""

    name: Literal["eurosat", "ucmerced", "intel", "trashnet", "cifar10", "cifar100", "neudet"]
    path: Location | None


class Own(Settings):
    """Anybody's pictures: class folders, a CSV of path,label[,split], an .npz; or a zip or tar of those."""

    name: Literal["folder", "csv", "npz"]
    path: Location


Source = Annotated[Digits | Known | Own, Field(discriminator="name")]


class Policy(Settings):
    """What becomes of pictures that cannot simply be used. Whatever is left out is counted and listed."""

    broken: Literal["stop", "skip"]
    conflicts: Literal["stop", "exclude"]
    small_classes: Literal["stop", "exclude"]
    near_copies: Literal["report", "together"]


class Prepare(Settings):
    """Shares are of the pictures whose split the source leaves open; `folds: 1` is no cross-validation.

    `groups` are further columns of a CSV, by which answers are judged apart.
    """

    source: Source
    groups: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]
    image_size: Annotated[int, Field(ge=8, le=1024)]
    fit: Literal["crop", "pad", "stretch"]
    val_share: ProperFraction
    test_share: ProperFraction
    folds: PositiveInt
    fold: NonNegativeInt
    calibration_images: PositiveInt
    policy: Policy

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError(f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on")
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is not one of {self.folds}: they count from 0")
        if len(set(self.groups)) < len(self.groups):
            raise ValueError(f"groups {list(self.groups)}: each column once")
        return self


class Augment(Settings):
    """What may be done to a picture without making its label wrong, each picture by its own draw."""

    mirror: bool
    flip: bool
    shift: NonNegativeInt
    rotate: Annotated[float, Field(ge=0, le=180)]
    crop: Annotated[float, Field(gt=0, le=1)]
    stretch: Annotated[float, Field(ge=1, le=4)]
    brightness: Fraction
    contrast: Fraction
    saturation: Fraction
    hue: Annotated[float, Field(ge=0, le=0.5)]
    erase: Fraction


def source(name: str, path: str | None) -> Source:
    return TypeAdapter(Source).validate_python({"name": name, "path": path})
