"""Every objective there is, by name."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import params
from stages.core.objectives import layers, logits
from stages.core.objectives.contract import Objective, Situation, Step


class Mutual(Objective):
    """Zhang et al. 2018, deep mutual learning: both learn from the labels and from each other, neither is ready."""

    def __init__(self, settings: params.Mutual, situation: Situation) -> None:
        super().__init__()
        self.peer = situation.begin(settings.peer)

    def forward(self, step: Step) -> Tensor:
        mine, theirs = logits.rows(step.student.logits), logits.rows(self.peer(step.images))
        labels = logits.rows_of_labels(step.labels)
        return self._learns(mine, theirs, labels) + self._learns(theirs, mine, labels)

    def peers(self) -> list[nn.Module]:
        return [self.peer]

    @staticmethod
    def _learns(answers: Tensor, advice: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(answers, labels) + logits.softened(answers, advice.detach(), temperature=1)


def of_logits(settings: params.Anything, _situation: Situation) -> Objective:
    return logits.OfLogits(settings)


# Settings and a situation give a module: a step to a loss.
OBJECTIVES: Mapping[str, Callable[[Any, Situation], Objective]] = {
    **dict.fromkeys(logits.LOSSES, of_logits),
    **layers.LOSSES,
    "mutual": Mutual,
}


def labels_alone(smoothing: float = 0.0) -> Objective:
    return logits.OfLogits(params.CrossEntropy(name="cross_entropy", smoothing=smoothing))


def build(settings: params.Anything, situation: Situation, seed: int) -> Objective:
    """What it learns by itself begins with weights that follow from the seed."""
    torch.manual_seed(seed)
    return OBJECTIVES[settings.name](settings, situation).to(situation.example.device)


def listens(settings: params.Anything) -> bool:
    return not isinstance(settings, params.WITHOUT_TEACHER)
