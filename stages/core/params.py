"""Every number a person may change: params.yaml as strict, frozen classes.

No field has a default, so that params.yaml is complete and `dvc params diff` hides nothing. A choice among methods is
a union of small classes told apart by `name`; the function that carries out a method takes its class, and the table
beside that function has the same names (a test holds them together).
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.running.errors import Refusal

Fraction = Annotated[float, Field(ge=0, le=1)]
ProperFraction = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


# ---------------------------------------------------------------------------------------------------- data


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
    """Shares are of the pictures whose split the source leaves open; `folds: 1` is no cross-validation."""

    source: Source
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


# ------------------------------------------------------------------------------------------------ networks


class ResidualCNN(Settings):
    """A small residual network; each second block doubles the channels and halves the picture."""

    name: Literal["residual_cnn"]
    blocks: Annotated[int, Field(ge=2, le=16)]
    hidden_layers: Annotated[int, Field(ge=0, le=3)]


class ResNet(Settings):
    """ResNet-18, with a stem for small pictures (3x3, no pooling) or the ImageNet one (7x7, stride 2, pooling)."""

    name: Literal["resnet18"]
    stem: Literal["small", "imagenet"]
    width: Annotated[float, Field(ge=0.125, le=2)]


Network = Annotated[ResidualCNN | ResNet, Field(discriminator="name")]


# ------------------------------------------------------------------------------------------------ training


class SGD(Settings):
    name: Literal["sgd"]
    rate: PositiveFloat
    momentum: Fraction
    weight_decay: NonNegative


class AdamW(Settings):
    name: Literal["adamw"]
    rate: PositiveFloat
    weight_decay: NonNegative


class Unmixed(Settings):
    """Every picture is one picture."""

    name: Literal["none"]


class Mixed(Settings):
    """Two pictures and their labels, in shares from Beta(alpha, alpha): blended, or a box of one in the other."""

    name: Literal["mixup", "cutmix"]
    alpha: PositiveFloat


Mix = Annotated[Unmixed | Mixed, Field(discriminator="name")]


class Training(Settings):
    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")]
    warm_up_epochs: NonNegative
    patience: PositiveInt
    clip_gradient: PositiveFloat | None
    mix: Mix


class CrossEntropy(Settings):
    """Labels alone, no teacher."""

    name: Literal["cross_entropy"]
    smoothing: Annotated[float, Field(ge=0, lt=1)]


class Hinton(Settings):
    """(1 - alpha) cross entropy + alpha T^2 KL(teacher || student), both softened by T."""

    name: Literal["hinton"]
    temperature: PositiveFloat
    alpha: Fraction


Objective = Annotated[CrossEntropy | Hinton, Field(discriminator="name")]


class Compute(Settings):
    """Where and how precisely to compute.

    `threads: 0` takes every core. A split that needs more than the share `resident` of the device's free memory is
    streamed to it instead of kept there.
    """

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["float32", "bfloat16"]
    threads: NonNegativeInt
    resident: Fraction


# -------------------------------------------------------------------------------------------------- stages


class TrainTeacher(Settings):
    network: Network
    objective: CrossEntropy
    training: Training


class Distill(Settings):
    student: Network
    method: Hinton
    training: Training


class Magnitude(Settings):
    """Groups of channels by the L1 or L2 norm of their weights, over all layers that must shrink together."""

    name: Literal["l1", "l2"]


class Random(Settings):
    """The control that every importance must beat."""

    name: Literal["random"]


class Prune(Settings):
    """`sparsity` is the share of the parameters to remove."""

    sparsity: Annotated[float, Field(ge=0, lt=1)]
    importance: Annotated[Magnitude | Random, Field(discriminator="name")]
    ranking: Literal["global", "layerwise"]
    round_to: PositiveInt
    recovery: Objective
    training: Training


class StaticInt8(Settings):
    """Post-training INT8: ranges of the activations from calibration pictures."""

    name: Literal["static_int8"]
    percentile: Annotated[float, Field(gt=50, lt=100)]
    equalize_iterations: NonNegativeInt
    correct_bias: bool


class Quantize(Settings):
    method: StaticInt8


class Evaluate(Settings):
    confidence: ProperFraction
    calibration_bins: Annotated[int, Field(ge=2, le=100)]
    examples: NonNegativeInt


class Export(Settings):
    """The gate, on val: how far a file may be from its network, and an INT8 file from the float one."""

    opset: Annotated[int, Field(ge=17, le=20)]
    min_agreement: Fraction
    max_accuracy_drop: Fraction
    max_int8_size: ProperFraction
    max_int8_drop: Fraction


class Benchmark(Settings):
    rounds: Annotated[int, Field(ge=3)]
    seconds_per_file: PositiveFloat
    confidence: ProperFraction


class Report(Settings):
    title: Annotated[str, Field(min_length=1)]


class Params(Settings):
    seed: NonNegativeInt
    compute: Compute
    prepare: Prepare
    augment: Augment
    train_teacher: TrainTeacher
    distill: Distill
    prune: Prune
    quantize: Quantize
    evaluate: Evaluate
    export: Export
    benchmark: Benchmark
    report: Report

    def pick(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


def source(name: str, path: str | None) -> Source:
    return TypeAdapter(Source).validate_python({"name": name, "path": path})


def load(path: Path) -> Params:
    """Read as DVC reads (YAML 1.2, where 1e-3 is a number), and stop at the first sight of a mistake."""
    if not path.is_file():
        raise Refusal(f"{path} is not there: run stages from the project's folder")
    try:
        return Params.model_validate(YAML(typ="safe").load(path))
    except YAMLError as error:
        raise Refusal(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        raise Refusal("; ".join(f"{path}: {_explain(detail)}" for detail in error.errors())) from error


def _explain(detail: ErrorDetails) -> str:
    where = [part for part in detail["loc"] if isinstance(part, str)]
    name = ".".join(str(part) for part in where)
    if detail["type"] == "extra_forbidden":
        return f"{name} is not a parameter; allowed here: {', '.join(_names(where[:-1]))}"
    if detail["type"] == "missing":
        return f"{name} is missing"
    return f"{name}: {detail['msg']}, got {detail['input']!r}"


def _names(where: list[str]) -> list[str]:
    """The parameters that a section holds; a method's own name stands in the path of its section."""
    classes: list[type[Settings]] = [Params]
    for part in where:
        classes = [found for kind in classes for found in _classes(kind, part)] or classes
    return list(dict.fromkeys(name for kind in classes for name in kind.model_fields))


def _classes(kind: type[Settings], part: str) -> list[type[Settings]]:
    field = kind.model_fields.get(part)
    if field is None:
        named = kind.model_fields.get("name")
        return [kind] if named and part in getattr(named.annotation, "__args__", ()) else []
    members = getattr(field.annotation, "__args__", (field.annotation,))
    return [member for member in members if isinstance(member, type) and issubclass(member, Settings)]
