"""How big a network is: numbers of the actual module with its actual head."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_accumulates(network: nn.Module, image_size: int) -> int:
    """For one picture; PyTorch counts a multiplication and an addition as two operations."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, image_size, image_size, device=device))
    network.train(was_training)
    return counter.get_total_flops() // 2
