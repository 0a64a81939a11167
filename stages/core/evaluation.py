"""The one evaluator: evaluation mode, no gradient, and whatever mode the network was in is put back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import batches
from stages.core.batches import Pictures


def logits(network: nn.Module, pictures: Pictures) -> Tensor:
    """In float32 whatever training used, so that two evaluations of one network agree to the bit."""
    with mode(network), torch.no_grad():
        return torch.cat([network(images).float() for images, _ in batches.in_order(pictures)])


@contextmanager
def mode(network: nn.Module) -> Iterator[None]:
    """In which BatchNorm learns nothing from what it is shown."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, own in modes.items():
            module.training = own


def on_val(answers: Tensor, labels: Tensor) -> dict[str, float]:
    """By which networks and epochs are chosen."""
    return {"val_accuracy": accuracy(answers, labels), "val_loss": functional.cross_entropy(answers, labels).item()}


def accuracy(answers: Tensor, labels: Tensor) -> float:
    return (answers.argmax(dim=1) == labels).sum().item() / len(labels)
