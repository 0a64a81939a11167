"""Every network there is. Contract: settings, classes and image size give a module, normalised pictures to logits.

Libraries are imported where a network of theirs is built: they take seconds.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.networks import attention, residual
from stages.core.running.errors import Refusal

LARGEST_FOR_SMALL_STEM = 64  # pixels
PATCHES, LEAST_GRID = (16, 8, 4), 8
SHUFFLENETS = {width: f"shufflenet_v2_x{str(width).replace('.', '_')}" for width in (0.5, 1.0, 1.5, 2.0)}
VITS = {"vit_tiny": "vit_tiny_patch16_224", "vit_small": "vit_small_patch16_224", "vit_base": "vit_base_patch16_224"}


def residual_cnn(settings: params.ResidualCNN, classes: int, _image_size: int) -> nn.Module:
    return residual.ResidualCNN(settings, classes)


def resnet9(settings: params.ResNet9, classes: int, _image_size: int) -> nn.Module:
    return residual.ResNet9(settings, classes)


def resnet(settings: params.ResNet, classes: int, image_size: int) -> nn.Module:
    return residual.ResNet(settings, classes, has_small_stem(settings.stem, image_size))


def resnet_for_cifar(settings: params.ResNetForCIFAR, classes: int, _image_size: int) -> nn.Module:
    return residual.ResNet(settings, classes, small_stem=True)


def mobile(settings: params.Mobile, classes: int, image_size: int) -> nn.Module:
    from torchvision import models

    network = models.get_model(settings.name, num_classes=classes, width_mult=settings.width)
    return _without_early_strides(network, settings.stem, image_size)


def shufflenet(settings: params.ShuffleNet, classes: int, image_size: int) -> nn.Module:
    from torchvision import models

    network = models.get_model(SHUFFLENETS[settings.width], num_classes=classes)
    return _without_early_strides(network, settings.stem, image_size)


def efficientnet(settings: params.EfficientNet, classes: int, image_size: int) -> nn.Module:
    from torchvision import models

    network = models.get_model(settings.name, num_classes=classes)
    return _without_early_strides(network, settings.stem, image_size)


def vit(settings: params.ViT, classes: int, image_size: int) -> nn.Module:
    import timm

    patch = settings.patch or next((size for size in PATCHES if image_size // size >= LEAST_GRID), 2)
    return timm.create_model(VITS[settings.name], num_classes=classes, img_size=image_size, patch_size=patch)


def from_timm(settings: params.Timm, classes: int, image_size: int) -> nn.Module:
    import timm

    if not timm.is_model(settings.model):
        near = difflib.get_close_matches(settings.model, timm.list_models(), n=3, cutoff=0.5)
        raise Refusal(
            f"timm has no network {settings.model!r}; near it: {', '.join(near) or 'none'}; "
            "all: lightvision models --timm '*'"
        )
    options: dict[str, Any] = {"num_classes": classes, "img_size": image_size} | settings.options
    try:
        try:
            return timm.create_model(settings.model, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(settings.model, **{name: options[name] for name in options if name != "img_size"})
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        asked = f"{settings.model} for {image_size} px with {settings.options}"
        raise Refusal(f"timm cannot build {asked}: {error}") from error


def from_torchvision(settings: params.Torchvision, classes: int, image_size: int) -> nn.Module:
    """Some must be told the size of pictures; losses in the middle and slow random weights are never wanted."""
    from torchvision import models

    known = models.list_models(module=models)
    if settings.model not in known:
        near = difflib.get_close_matches(settings.model, known, n=3, cutoff=0.5)
        raise Refusal(
            f"torchvision has no classifier {settings.model!r}; near it: {', '.join(near) or 'none'}; "
            "all: lightvision models --torchvision '*'"
        )
    built: Any = inspect.signature(models.get_model_builder(settings.model)).return_annotation
    told = {"image_size": image_size, "input_size": (image_size, image_size), "aux_logits": False, "init_weights": True}
    taken = inspect.signature(built).parameters
    options: dict[str, Any] = {name: value for name, value in told.items() if name in taken}
    try:
        network = models.get_model(settings.model, **options | {"num_classes": classes} | settings.options)
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
        asked = f"{settings.model} for {image_size} px with {settings.options}"
        raise Refusal(f"torchvision cannot build {asked}: {error}") from error
    return attention.said_plainly(network)


class Ensemble(nn.Module):
    """The mean of what its members answer."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(dim=0)


def ensemble(settings: params.Ensemble, classes: int, image_size: int) -> nn.Module:
    return Ensemble([build(member, classes, image_size) for member in settings.members])


FAMILIES: Mapping[str, Callable[[Any, int, int], nn.Module]] = {
    "residual_cnn": residual_cnn,
    "resnet9": resnet9,
    **dict.fromkeys(residual.DEPTHS, resnet),
    **dict.fromkeys(residual.DEPTHS_FOR_CIFAR, resnet_for_cifar),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"), mobile),
    "shufflenet_v2": shufflenet,
    **dict.fromkeys(("efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s"), efficientnet),
    **dict.fromkeys(VITS, vit),
    "timm": from_timm,
    "torchvision": from_torchvision,
    "ensemble": ensemble,
}


def build(settings: params.Network, classes: int, image_size: int) -> nn.Module:
    return FAMILIES[settings.name](settings, classes, image_size)


def has_small_stem(stem: str, image_size: int) -> bool:
    return stem == "small" or (stem == "auto" and image_size <= LARGEST_FOR_SMALL_STEM)


def heads(network: nn.Module) -> list[str]:
    """The layers that give the logits: as timm tells of its own, else the last one there is."""
    if isinstance(network, Ensemble):
        return [f"members.{n}.{head}" for n, member in enumerate(network.members) for head in heads(member)]
    told = (getattr(network, "pretrained_cfg", None) or {}).get("classifier")
    if told:
        return [told] if isinstance(told, str) else list(told)
    return [[name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]]


def _without_early_strides(network: nn.Module, stem: str, image_size: int) -> nn.Module:
    """The small stem: as in the ResNets for CIFAR, the first two halvings are left out."""
    if has_small_stem(stem, image_size):
        halving = [module for module in network.modules() if getattr(module, "stride", None) in (2, (2, 2))]
        halving = [module for module in halving if isinstance(module, nn.Conv2d | nn.MaxPool2d)]
        for module in halving[:2]:
            module.stride = (1, 1)
    return network
