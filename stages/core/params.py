"""Every number a person may change: params.yaml as strict, frozen classes.

No field has a default, so that params.yaml is complete and `dvc params diff` hides nothing. A choice among methods is
a union of small classes told apart by `name`; the function that carries out a method takes its class, and the table
beside that function has the same names (a test holds them together).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
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
    """The 1,797 handwritten digits that scikit-learn carries."""

    name: Literal["digits"]


class Folder(Settings):
    """One folder of pictures for each class."""

    name: Literal["folder"]
    path: Annotated[str, Field(min_length=1)]


Source = Annotated[Digits | Folder, Field(discriminator="name")]


class Prepare(Settings):
    source: Source
    image_size: Annotated[int, Field(ge=8, le=1024)]
    val_share: ProperFraction
    test_share: ProperFraction
    calibration_images: PositiveInt


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


class Augment(Settings):
    """Shift by up to `shift` pixels in each direction, and mirror half the pictures."""

    shift: NonNegativeInt
    mirror: bool


class Training(Settings):
    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")]
    warm_up_epochs: NonNegative
    patience: PositiveInt
    clip_gradient: PositiveFloat | None
    augment: Augment


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
    """Where and how precisely to compute; `threads: 0` takes every core."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["float32", "bfloat16"]
    threads: NonNegativeInt


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
