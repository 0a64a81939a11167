"""Every number a person may change: params.yaml as strict, frozen classes.

No field has a default, so that params.yaml is complete and `dvc params diff` hides nothing. A choice among methods is
a union of small classes told apart by `name`; the function that carries out a method takes its class, and the table
beside that function has the same names (a test holds them together).
"""

from stages.core.params.data import Augment, Digits, Known, Own, Policy, Prepare, Source, source
from stages.core.params.networks import (
    EfficientNet,
    Ensemble,
    Member,
    Mobile,
    Network,
    ResidualCNN,
    ResNet,
    ResNet9,
    ShuffleNet,
    Timm,
    ViT,
)
from stages.core.params.reading import load
from stages.core.params.sections import (
    Benchmark,
    Distill,
    Evaluate,
    Export,
    Magnitude,
    Params,
    Prune,
    Quantize,
    Random,
    Report,
    StaticInt8,
    TrainTeacher,
)
from stages.core.params.training import (
    SGD,
    Adam,
    Adam8bit,
    AdamW,
    Compute,
    Constant,
    Cosine,
    CrossEntropy,
    Exponential,
    Fail,
    File,
    Hinton,
    ImageNet,
    Mix,
    Mixed,
    Muon,
    Objective,
    OneCycle,
    OnNan,
    Optimizer,
    Plateau,
    Retry,
    Schedule,
    Scratch,
    Shampoo,
    Training,
    Unmixed,
    Weights,
)
