"""How a network learns, and on what machine."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from stages.core.params.base import Fraction, NonNegative, ProperFraction, Settings


class SGD(Settings):
    """With Nesterov's momentum."""

    name: Literal["sgd"]
    rate: PositiveFloat
    momentum: Fraction
    weight_decay: NonNegative


class Adam(Settings):
    """Its weight decay is L2 in the gradient, as in the paper."""

    name: Literal["adam"]
    rate: PositiveFloat
    weight_decay: NonNegative


class AdamW(Settings):
    name: Literal["adamw"]
    rate: PositiveFloat
    weight_decay: NonNegative


class Adam8bit(Settings):
    """AdamW whose two moments take a byte each; of layers with fewer than 4,096 weights, four."""

    name: Literal["adamw_8bit"]
    rate: PositiveFloat
    weight_decay: NonNegative


class Shampoo(Settings):
    """Preconditioners of whole layers, their roots taken anew every `every` steps."""

    name: Literal["shampoo"]
    rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    every: PositiveInt


class Muon(Settings):
    """Orthogonalised momentum for hidden weights; `others_rate` is AdamW's, for ends and vectors."""

    name: Literal["muon"]
    rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    others_rate: PositiveFloat


Optimizer = Annotated[SGD | Adam | AdamW | Adam8bit | Shampoo | Muon, Field(discriminator="name")]


class Constant(Settings):
    """The full rate, after a linear warm-up as in all but one_cycle."""

    name: Literal["constant"]
    warm_up_epochs: NonNegative


class Cosine(Settings):
    """Half a cosine down to zero."""

    name: Literal["cosine"]
    warm_up_epochs: NonNegative


class Exponential(Settings):
    """Times `decay` in each epoch."""

    name: Literal["exponential"]
    warm_up_epochs: NonNegative
    decay: Annotated[float, Field(gt=0, le=1)]


class Plateau(Settings):
    """Times `factor` when the loss on val has not fallen for more than `patience` epochs."""

    name: Literal["plateau"]
    warm_up_epochs: NonNegative
    factor: ProperFraction
    patience: NonNegativeInt


class OneCycle(Settings):
    """Up from `first` of the rate over the share `rise` of all steps, then down to `last` of it, by cosines."""

    name: Literal["one_cycle"]
    rise: ProperFraction
    first: ProperFraction
    last: ProperFraction


Schedule = Annotated[Constant | Cosine | Exponential | Plateau | OneCycle, Field(discriminator="name")]


class Fail(Settings):
    """A loss that is not finite ends the stage."""

    name: Literal["fail"]


class Retry(Settings):
    """Back to the last whole epoch and on with the rate times `factor`, `times` times at most."""

    name: Literal["retry"]
    times: PositiveInt
    factor: ProperFraction


OnNan = Annotated[Fail | Retry, Field(discriminator="name")]


class Unmixed(Settings):
    """Every picture is one picture."""

    name: Literal["none"]


class Mixed(Settings):
    """Two pictures and their labels, in shares from Beta(alpha, alpha): blended, or a box of one in the other."""

    name: Literal["mixup", "cutmix"]
    alpha: PositiveFloat


Mix = Annotated[Unmixed | Mixed, Field(discriminator="name")]


class Training(Settings):
    """`batch_size` pictures make a step, seen in `accumulate` parts; `average` is the decay of averaged weights."""

    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    accumulate: PositiveInt
    optimizer: Optimizer
    schedule: Schedule
    patience: PositiveInt
    clip_gradient: PositiveFloat | None
    average: ProperFraction | None
    mix: Mix
    on_nan: OnNan


class Compute(Settings):
    """Where and how precisely to compute.

    Precision `auto` is bfloat16 where the hardware multiplies it natively, else float32. `compile` is a mode of
    torch.compile. `processes` train together, each on a GPU of its own or on a share of the cores; `threads: 0` takes
    every core. A split that needs more than the share `resident` of the device's free memory is streamed to it
    instead of kept there.
    """

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"]
    deterministic: bool
    processes: PositiveInt
    threads: NonNegativeInt
    resident: Fraction


class Scratch(Settings):
    """Random weights."""

    name: Literal["none"]


class ImageNet(Settings):
    """The weights that torchvision or timm publish; the last layer is new unless it has as many classes."""

    name: Literal["imagenet"]


class File(Settings):
    """A file of weights (.safetensors, .pth, .bin, .npz) or a model's folder; only the last layer may differ."""

    name: Literal["file"]
    path: Annotated[str, Field(min_length=1)]


Weights = Annotated[Scratch | ImageNet | File, Field(discriminator="name")]
