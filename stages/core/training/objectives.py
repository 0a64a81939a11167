"""What training minimises. Contract: settings and a guide (or none) give a function of logits, pictures and labels."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import params
from stages.core.running.errors import Refusal

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy(settings: params.CrossEntropy, _guide: nn.Module | None) -> Objective:
    def loss(logits: Tensor, _images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=settings.smoothing)

    return loss


def hinton(settings: params.Hinton, guide: nn.Module | None) -> Objective:
    """Hinton, Vinyals, Dean 2015: T^2 keeps the soft term's gradients at the size of the hard term's."""
    if guide is None:
        raise Refusal("the objective 'hinton' needs a teacher")
    temperature = settings.temperature

    def loss(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            advice = functional.log_softmax(guide(images).float() / temperature, dim=1)
        answer = functional.log_softmax(logits / temperature, dim=1)
        soft = functional.kl_div(answer, advice, reduction="batchmean", log_target=True) * temperature**2
        return settings.alpha * soft + (1 - settings.alpha) * functional.cross_entropy(logits, labels)

    return loss


OBJECTIVES: Mapping[str, Callable[[Any, nn.Module | None], Objective]] = {
    "cross_entropy": cross_entropy,
    "hinton": hinton,
}


def build(settings: params.Objective, guide: nn.Module | None) -> Objective:
    """A guide gives advice and learns nothing: it is in evaluation mode, and no gradient reaches it."""
    if guide is not None:
        guide.eval().requires_grad_(False)
    return OBJECTIVES[settings.name](settings, guide)
