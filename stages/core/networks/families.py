"""Every network there is. Contract: settings and a number of classes give a module, normalised pictures to logits."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from stages.core import params
from stages.core.networks import residual

FAMILIES: Mapping[str, Callable[[Any, int], nn.Module]] = {
    "residual_cnn": residual.ResidualCNN,
    "resnet18": residual.ResNet18,
}


def build(settings: params.Network, classes: int) -> nn.Module:
    return FAMILIES[settings.name](settings, classes)
