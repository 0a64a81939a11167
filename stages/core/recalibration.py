"""BatchNorm statistics, estimated anew after the weights before them have changed."""

import torch
from torch import nn

from stages.core import batches
from stages.core.batches import Pictures


def batch_norm(network: nn.Module, pictures: Pictures) -> None:
    """An average over batches of equal size, of the pictures as they are; the weights and Dropout stay still."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for images, _ in batches.in_order(pictures):
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
