"""One section of params.yaml for each stage, and the whole of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.core.params.base import Fraction, ProperFraction, Settings
from stages.core.params.data import Augment, Prepare
from stages.core.params.networks import Member, Network
from stages.core.params.training import Compute, CrossEntropy, Hinton, Objective, Training, Weights


class TrainTeacher(Settings):
    """`learn: head` leaves all but the last layer as it came, `nothing` everything."""

    network: Network
    weights: Weights
    learn: Literal["all", "head", "nothing"]
    objective: CrossEntropy
    training: Training

    @model_validator(mode="after")
    def _worth_keeping(self) -> Self:
        if self.learn != "all" and self.weights.name == "none":
            raise ValueError(f"learn: {self.learn} keeps weights that are random; set weights to imagenet or to a file")
        return self


class Distill(Settings):
    student: Member
    weights: Weights
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
