"""One section of params.yaml for each stage, and the whole of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stages.core.params import distillation
from stages.core.params.base import Fraction, ProperFraction, Settings
from stages.core.params.budget import Budget
from stages.core.params.conversion import Convert
from stages.core.params.data import Augment, Prepare
from stages.core.params.distillation import CrossEntropy, Guide, Method, Recovery
from stages.core.params.judging import Evaluate
from stages.core.params.networks import AsTeacher, Ensemble, Network, Student
from stages.core.params.pruning import Importance, Lasso, Zeros
from stages.core.params.quantization import Float8, Integer, Ladder, Quantization
from stages.core.params.training import Compute, Mix, Training, Weights

OPSET_OF_FLOAT8 = 19


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


class Advise(Settings):
    """What the teacher says of `views` augmented views of each training picture, asked once; none: asked at each step.

    `keep` is how many of a picture's highest logits are kept, `seed` that of the views, whatever seed a student has.
    """

    views: NonNegativeInt
    mix: Mix
    keep: PositiveInt | None
    precision: Literal["bfloat16", "float32"]
    seed: NonNegativeInt


class Distill(Settings):
    """`seeds` students learn, the first one goes on; each has a `control` that learns from the labels alone."""

    student: Student
    weights: Weights
    guide: Guide
    method: Method
    control: bool
    seeds: Annotated[int, Field(ge=1, le=100)]
    confidence: ProperFraction
    training: Training

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.guide.name == "itself" and isinstance(self.method, distillation.WITHOUT_TEACHER):
            raise ValueError(
                f"method {self.method.name} listens to no earlier generation; set guide to {{name: teacher}}"
            )
        if self.guide.name == "itself" and not self.control:
            raise ValueError(
                "guide itself begins with the control, the generation of labels alone; set control to true"
            )
        if isinstance(self.student, AsTeacher) and (self.weights.name != "none" or self.guide.name != "teacher"):
            raise ValueError("student {name: teacher} goes on as it came: set weights to none and guide to teacher")
        return self


class Prune(Settings):
    """`sparsity` is the share to remove, of `of`; in `steps` cuts, with `between` epochs of recovery after each.

    First `blocks` go, whole: those that the loss on the calibration pictures misses least; attention loses heads, or
    dimensions of each. Layers under `protect`, by their names, keep what they have, as the last one keeps its outputs.
    What is left gets its `zeros`. `scan` are shares that each layer loses alone, to see what it bears; the ranking
    `sensitivity` follows from that.

    Milliseconds are measured. `controls` learn as long: the network with all it had, and the narrow one from random
    weights; all of it for each of the `seeds`, and the first goes on.
    """

    sparsity: Annotated[float, Field(ge=0, lt=1)]
    of: Literal["parameters", "macs", "bytes", "milliseconds"]
    importance: Importance
    ranking: Literal["global", "layerwise", "isomorphic", "sensitivity"]
    round_to: PositiveInt
    blocks: NonNegativeInt
    attention: Literal["heads", "dimensions", "kept"]
    protect: Annotated[tuple[str, ...], Field(strict=False)]
    scan: Annotated[tuple[ProperFraction, ...], Field(strict=False)]
    zeros: Zeros
    lasso: Lasso | None
    steps: Annotated[int, Field(ge=1, le=50)]
    pace: Literal["equal", "cubic"]
    between: NonNegativeInt
    controls: bool
    seeds: Annotated[int, Field(ge=1, le=100)]
    confidence: ProperFraction
    recovery: Recovery
    training: Training

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.ranking == "sensitivity" and not self.scan:
            raise ValueError("ranking sensitivity follows a scan: set scan to the shares to try, as [0.25, 0.5, 0.75]")
        if list(self.scan) != sorted(set(self.scan)):
            raise ValueError(f"scan {list(self.scan)}: shares in rising order, each once")
        return self


class Quantize(Settings):
    """With `search` ten ways to calibrate are tried, and the best on val is taken. Where accuracy on val falls by more
    than `scan_beyond`, each layer is quantized alone, to see which one it is.

    With a `recovery` the integer network learns on, its roundings included, down a `ladder` of widths if there is one;
    BatchNorm stands still after a share `settle` of the epochs. Of `controls`, the network in floating point learns as
    long, and is rounded only then; all of it for each of the `seeds`, and the first goes on.
    """

    method: Quantization
    search: bool
    scan_beyond: ProperFraction
    recovery: Recovery | None
    ladder: Ladder
    settle: Fraction
    controls: bool
    seeds: Annotated[int, Field(ge=1, le=100)]
    confidence: ProperFraction
    training: Training

    @model_validator(mode="after")
    def _possible(self) -> Self:
        method = self.method
        if not isinstance(method, Integer) and (self.search or self.recovery):
            asked = "search" if self.search else "recovery"
            raise ValueError(f"{asked} is for method integer: {method.name} has nothing to choose or to learn")
        if self.ladder.weights and self.recovery is None:
            raise ValueError("ladder is what a network learns on: set recovery, or ladder.weights to []")
        return self


class Export(Settings):
    """The gate, on val: how far a file may be from its network, and a file of fewer bits from the float one. A file is
    ideal whose packed weights take just their bits.
    """

    opset: Annotated[int, Field(ge=17, le=20)]
    min_agreement: Fraction
    max_accuracy_drop: Fraction
    max_int8_size: ProperFraction
    max_quantized_drop: Fraction
    max_over_ideal: Annotated[float, Field(ge=1)]
    confidence: ProperFraction


class Benchmark(Settings):
    """`batches` are timed beside single pictures, which always are."""

    rounds: Annotated[int, Field(ge=3)]
    seconds_per_file: PositiveFloat
    batches: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(strict=False)]
    confidence: ProperFraction


class Report(Settings):
    """The page says which file keeps to the `budget`. Networks whose accuracy differs by less than the `margin` are
    equivalent.
    """

    title: Annotated[str, Field(min_length=1)]
    margin: ProperFraction
    budget: Budget


class Params(Settings):
    seed: NonNegativeInt
    compute: Compute
    prepare: Prepare
    augment: Augment
    train_teacher: TrainTeacher
    advise: Advise
    distill: Distill
    prune: Prune
    quantize: Quantize
    evaluate: Evaluate
    export: Export
    convert: Convert
    benchmark: Benchmark
    report: Report

    @model_validator(mode="after")
    def _agreed(self) -> Self:
        """What no section can know alone."""
        if isinstance(self.distill.student, AsTeacher) and isinstance(self.train_teacher.network, Ensemble):
            raise ValueError("distill.student: an ensemble teaches, but cannot be pruned: name one network")
        if isinstance(self.distill.student, AsTeacher):
            pass  # nothing is distilled
        elif self.distill.guide.name == "teacher":
            self._heard("distill", "method", self.distill.method, self.distill.training)
        else:
            self._blended("distill", "method", self.distill.method, self.distill.training.mix, "distill.training.mix")
        self._heard("prune", "recovery", self.prune.recovery, self.prune.training)
        if isinstance(self.quantize.method, Float8) and self.export.opset < OPSET_OF_FLOAT8:
            raise ValueError(f"export.opset: ONNX has float8 from opset {OPSET_OF_FLOAT8} on; set it to that, or to 20")
        if self.quantize.recovery is not None:
            self._heard("quantize", "recovery", self.quantize.recovery, self.quantize.training)
        return self

    def _heard(self, section: str, entry: str, method: distillation.Anything, training: Training) -> None:
        """From views, or at each step."""
        cached = self.advise.views > 0 and not isinstance(method, distillation.WITHOUT_TEACHER)
        if cached and isinstance(method, distillation.ABOUT_LAYERS):
            raise ValueError(
                f"{section}.{entry}: {method.name} looks at layers of the teacher, and views keep its logits alone; "
                "set advise.views to 0"
            )
        if cached and training.mix.name != "none":
            raise ValueError(f"{section}.training.mix: views are blended by advise.mix; set this to {{name: none}}")
        where = "advise.mix" if cached else f"{section}.training.mix"
        self._blended(section, entry, method, self.advise.mix if cached else training.mix, where)

    def _blended(self, section: str, entry: str, method: distillation.Anything, mix: Mix, where: str) -> None:
        if isinstance(method, distillation.ONE_LABEL_EACH) and mix.name != "none":
            raise ValueError(
                f"{section}.{entry}: {method.name} needs one label a picture; set {where} to {{name: none}}"
            )
        if isinstance(method, distillation.FunctionMatching) and mix.name == "none":
            raise ValueError(
                f"{section}.{entry}: function_matching needs blended pictures; set {where} to "
                "{name: mixup, alpha: 1.0}"
            )
        if isinstance(method, distillation.CRD) and self.compute.processes > 1:
            raise ValueError(
                f"{section}.{entry}: crd remembers every picture in one process; set compute.processes to 1"
            )

    def pick(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}
