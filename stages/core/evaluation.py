"""The one evaluator: evaluation mode, no gradient, and whatever mode the network was in is put back."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.core import batches
from stages.core.batches import Pictures


def logits(network: nn.Module, pictures: Pictures) -> Tensor:
    """In float32 whatever training used, so that two evaluations of one network agree to the bit."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            return torch.cat([network(images).float() for images, _ in batches.in_order(pictures)])
    finally:
        for module, mode in modes.items():
            module.training = mode


def on_val(answers: Tensor, labels: Tensor) -> dict[str, float]:
    """By which networks and epochs are chosen."""
    return {"val_accuracy": accuracy(answers, labels), "val_loss": functional.cross_entropy(answers, labels).item()}


def accuracy(answers: Tensor, labels: Tensor) -> float:
    return (answers.argmax(dim=1) == labels).sum().item() / len(labels)
