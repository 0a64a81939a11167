"""What the tests of training share: a small network, settings of it, and every optimizer."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.networks import families
from stages.core.networks.artifact import Model
from stages.core.objectives.contract import Objective, Step
from stages.core.pruning import cutting
from stages.core.training.loop import Lesson

SMALL = params.ResidualCNN(name="residual_cnn", blocks=2, hidden_layers=1)
BATCHES = 5  # of an epoch of `lesson`: 72 pictures by 16

OPTIMIZERS: dict[str, params.Optimizer] = {
    "sgd": params.SGD(name="sgd", rate=0.05, momentum=0.9, weight_decay=1e-4),
    "adam": params.Adam(name="adam", rate=0.01, weight_decay=1e-4),
    "adamw": params.AdamW(name="adamw", rate=0.01, weight_decay=0.05),
    "adamw_8bit": params.Adam8bit(name="adamw_8bit", rate=0.01, weight_decay=0.05),
    "shampoo": params.Shampoo(name="shampoo", rate=0.05, momentum=0.5, weight_decay=1e-4, every=3),
    "muon": params.Muon(name="muon", rate=0.02, momentum=0.9, weight_decay=0.05, others_rate=0.01),
}


class Asked(Objective):
    """Whatever a function says of a step."""

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self._loss = loss

    def forward(self, step: Step) -> Tensor:
        return self._loss(step)


def shrunk(dense: Model, wanted: params.Prune, seed: int = 0) -> nn.Module:
    """In one cut, with no gradients to look at."""
    return cutting.shrink(dense.network, wanted.sparsity, cutting.plan(dense, dense.network, wanted, seed), {})


def change(lesson: Lesson, **training: object) -> Lesson:
    return replace(lesson, settings=lesson.settings.model_copy(update=training))


def new(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return families.build(SMALL, 3, 8)


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)
