"""What the other stages wrote down, read strictly, so that nothing on the page can be a silent blank."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from stages.core import params
from stages.core.running.errors import Refusal

NETWORKS = ("teacher", "control", "student", "pruned", "quantized")
SHIPPED = ("teacher", "student", "pruned", "quantized")
PORTABLE = "quantized-portable"


class Found(BaseModel):
    """A key that is missing is an error; one that the page does not show is none."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class Prepared(Found):
    classes: int
    pictures: dict[str, int]
    calibration: int
    copies: int
    rarest_class: int


class Lesson(Found):
    val_accuracy: float
    val_loss: float
    best_epoch: int
    epochs: int
    stopped_early: bool


class Trained(Lesson):
    parameters: int
    macs: int


class Twins(Found):
    """Val accuracy of a student and its control that began with the same seed."""

    student: float
    control: float | None


class Companion(Lesson):
    """A network that was trained along: a peer, or an earlier generation, which has no control of its own."""

    control: Lesson | None = None


class Distilled(Found):
    """The lessons are those of the first seed, whose student goes on."""

    student: Lesson
    control: Lesson | None
    seeds: dict[str, Twins]
    verdict: Literal["helps", "hurts", "not shown", "no control"]
    gain_on_val: float | None
    gain_low: float | None
    gain_high: float | None
    confidence: float
    method: str
    taught_by: Literal["teacher", "itself", "a peer", "nobody"]
    advice: str
    parameters: int
    macs: int
    companions: dict[str, Companion]

    @model_validator(mode="after")
    def _controls_agree(self) -> Self:
        """Nothing is claimed without a control, and no control is lost between seeds."""
        controls = {twins.control is not None for twins in self.seeds.values()}
        told = {self.control is not None, self.verdict != "no control", self.gain_on_val is not None}
        if controls | told not in ({True}, {False}):
            raise ValueError("control, seeds, verdict and gain_on_val disagree whether there is a control")
        if bool(self.seeds) != (self.taught_by != "nobody"):
            raise ValueError("seeds and taught_by disagree whether there was a lesson")
        return self


class Width(Found):
    before: int
    after: int


class Heads(Found):
    """Of one attention; `dimension` is what each head sees."""

    heads: Width
    dimension: Width


class Size(Found):
    """Bytes are those of the float32 file."""

    parameters: int
    macs: int
    bytes: int


class Kept(Size):
    nonzero: int


class Cut(Found):
    removed: float
    zeros: float
    val_accuracy: float


Control = Literal["uncut", "from-scratch"]
Learner = Literal["pruned", "uncut", "from-scratch"]


def _learnt(found: Any) -> Any:
    """Who did not learn has null in the place of an accuracy."""
    return {name: value for name, value in found.items() if value is not None} if isinstance(found, dict) else found


Accuracies = Annotated[dict[Learner, float], BeforeValidator(_learnt)]


class Against(Found):
    """A network's val accuracy less its control's, over the seeds."""

    gain: float
    low: float | None
    high: float | None
    verdict: Literal["helps", "hurts", "not shown"]


class Pruned(Lesson):
    """Lessons and sizes are those of the first seed, whose network goes on."""

    val_accuracy_before_recovery: float
    of: str
    before: Size
    after: Kept
    parameters_removed: float
    macs_removed: float
    bytes_removed: float
    zeros: float
    blocks: dict[str, int]
    steps: dict[str, Cut]
    controls: dict[Control, Lesson] | None
    seeds: dict[str, Accuracies] = Field(min_length=1)
    against: dict[Control, Against]
    confidence: float
    channels: dict[str, Width]
    heads: dict[str, Heads]
    zeros_by_layer: dict[str, float]

    @model_validator(mode="after")
    def _controls_agree(self) -> Self:
        """A control that learnt did so for every seed, and is judged."""
        learnt = set(self.controls or ())
        if self.against.keys() != learnt or any(one.keys() != learnt | {"pruned"} for one in self.seeds.values()):
            raise ValueError("controls, seeds and against disagree who learnt beside the pruned network")
        return self


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
    float_layers: list[str] = []
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


class Judged(Found):
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    macro_f1: float
    calibration_error: float


class TaughtByTeacher(Judged):
    agreement: float = Field(alias="agreement_with_teacher")


class CutFromStudent(Judged):
    agreement: float = Field(alias="agreement_with_student")


class RoundedFromPruned(Judged):
    agreement: float = Field(alias="agreement_with_pruned")


class Evaluated(Found):
    pictures: int
    teacher: Judged
    student: TaughtByTeacher
    control: TaughtByTeacher | None = None
    pruned: CutFromStudent
    quantized: RoundedFromPruned


class Shipped(Found):
    """`tensor_bytes` are those of the numbers unpacked; `ideal_bytes` those of a file whose packed weights take
    just their bits."""

    bytes: int
    ideal_bytes: int
    tensor_bytes: int
    zeros: float
    packed: int
    agreement: float
    accuracy: float
    accuracy_drop: float
    drop_low: float
    drop_high: float
    largest_difference: float


class Steps(Found):
    """How many of which operator."""

    products: dict[str, int]
    additions: dict[str, int]
    pooling: dict[str, int]
    others: dict[str, int]


class Operators(Found):
    integer: Steps
    floating: Steps
    conversions: dict[str, int]
    ends: dict[str, int]
    first_is_integer: bool
    last_is_integer: bool


class FewerBits(Shipped):
    """`saturates` counts weights whose products some processors cannot add; only a file of integers has levels and
    operators."""

    saturates: int
    levels: int | None = None
    operators: Operators | None = None


class Exported(Found):
    teacher: Shipped
    student: Shipped
    pruned: Shipped
    quantized: FewerBits
    portable: FewerBits | None = Field(None, alias=PORTABLE)


class Timing(Found):
    median: float
    low: float
    high: float
    p95: float
    times_faster: float = Field(alias="times_faster_than_teacher")
    noisy: bool


class File(Found):
    bytes: int
    weights: str
    parameters: int
    macs: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    integer_kernels: int
    float_kernels: int
    load_milliseconds: float
    one_thread: Timing
    all_threads: Timing


class Files(Found):
    teacher: File
    student: File
    pruned: File
    quantized: File
    portable: File | None = Field(None, alias=PORTABLE)


class Machine(Found):
    """And whatever else is told of it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | int | list[str]]  # pyright: ignore[reportIncompatibleVariableOverride]
    integer_products: Literal["exact", "saturating"]
    integer_products_because: str


class Benchmarked(Found):
    machine: Machine
    pictures: int
    files: Files


class Labels(Found):
    dataset: str
    classes: list[str]
    image_size: int


class Model(Found):
    """model.json without its widths; the weights are not read."""

    architecture: dict[str, Any]
    facts: Labels
    quantization: params.Quantization | None
    parents: dict[str, str]
    origin: dict[str, str]
    weights_sha256: str


@dataclass(frozen=True)
class Findings:
    prepared: Prepared
    trained: Trained
    distilled: Distilled
    pruned: Pruned
    quantized: Quantized
    evaluated: Evaluated
    exported: Exported
    benchmarked: Benchmarked
    sensitivity: pd.DataFrame
    classes: pd.DataFrame
    confusion: pd.DataFrame
    curves: pd.DataFrame
    answers: pd.DataFrame

    def __post_init__(self) -> None:
        """A control stands in all of them or in none."""
        wanted = self.distilled.control is not None
        there = {
            "evaluate.json": self.evaluated.control is not None,
            "classes.csv": "control" in set(self.classes["network"]),
            "answers.csv": "control" in self.answers,
        }
        for name, found in there.items():
            if found != wanted:
                told = "has a control and distill.json has none" if found else "has no control"
                raise Refusal(f"{name} {told}: `dvc repro` writes it anew")
        if (self.exported.portable is None) != (self.benchmarked.files.portable is None):
            raise Refusal(f"export.json and benchmark.json disagree on {PORTABLE}.onnx: `dvc repro` writes them anew")

    @property
    def networks(self) -> tuple[str, ...]:
        """Those that were trained."""
        return tuple(name for name in NETWORKS if name != "control" or self.distilled.control)


Kind = TypeVar("Kind", bound=Found)


def read(path: Path, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        said = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise Refusal(f"{path}: {said}; `dvc repro` writes it anew") from error
    except json.JSONDecodeError as error:
        raise Refusal(f"{path} is no JSON: {error}") from error


def table(path: Path, texts: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """A class may be called `NA` or `007`: only the columns of `numbers` are taken for numbers."""
    content = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in (*texts, *numbers) if name not in content]
    if missing:
        raise Refusal(f"{path} has no column {missing[0]}; `dvc repro` writes it anew")
    try:
        return content.astype(dict.fromkeys(numbers, float))
    except ValueError as error:
        raise Refusal(f"{path}: {error}; `dvc repro` writes it anew") from error


def read_sensitivity(path: Path) -> pd.DataFrame:
    return table(path, ("layer",), ("share", "val_accuracy", "val_loss"))


def read_classes(path: Path) -> pd.DataFrame:
    return table(path, ("network", "class"), ("precision", "recall", "f1", "pictures"))


def read_confusion(path: Path) -> pd.DataFrame:
    return table(path, ("actual", "predicted"), ())


def read_answers(folder: Path, control: bool) -> pd.DataFrame:
    networks = tuple(name for name in NETWORKS if name != "control" or control)
    confidences = tuple(f"{name}_confidence" for name in networks)
    return table(folder / "answers.csv", ("label", *networks), ("picture", *confidences))


def read_curves(folder: Path) -> pd.DataFrame:
    paths = [folder / f"{name}.csv" for name in ("teacher", "distill", "prune", "quantize")]
    columns = ("epoch", "train_loss", "val_loss", "val_accuracy")
    return pd.concat([table(path, ("network",), columns) for path in paths], ignore_index=True)
