"""What a network looks at: Grad-CAM (Selvaraju et al. 2017), for whatever layers it is made of."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from stages.core import evaluation
from stages.core.networks.families import Ensemble

LEAST = 4  # rows and columns: fewer say nothing of where
NORMS = (nn.LayerNorm, nn.RMSNorm)  # behind which all tokens are on one scale


@dataclass(frozen=True)
class Layout:
    """How a layer's output becomes planes, picture x channel x row x column, and is put back."""

    planes: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sight:
    """The last layer of a network that keeps rows and columns, and that its answer depends on."""

    network: nn.Module
    name: str
    layout: Layout
    prefix: str = ""  # where the network is a part of another one

    @property
    def path(self) -> str:
        return self.prefix + self.name


class Probe(nn.Module):
    """Stands behind a layer, and shows what it says as planes."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout, self.planes = layout, nn.Identity()

    def forward(self, said: Tensor) -> Tensor:
        return self.layout.back(self.planes(self.layout.planes(said)), said)


def find(network: nn.Module, example: Tensor) -> Sight | None:
    """By one forward and one backward pass; of an ensemble, in its first member."""
    if isinstance(network, Ensemble):
        found = find(network.get_submodule("members.0"), example)
        return found and Sight(found.network, found.name, found.layout, f"members.0.{found.prefix}")
    said = _said(network, example)
    answers, outputs = said.pop(""), list(said.values())
    gradients = torch.autograd.grad(answers.max(dim=1).values.sum(), outputs, allow_unused=True)
    for (name, output), gradient in reversed(list(zip(said.items(), gradients, strict=True))):
        layout = _layout(output)
        if layout and gradient is not None and layout.planes(gradient).any():
            return Sight(network, name, layout)
    return None


def heat(sight: Sight, image: Tensor, answer: int) -> Tensor:
    """Row x column, from 0 to 1: what speaks for this answer to one picture. All 0 where nothing does."""
    probe = Probe(sight.layout)
    handle = sight.network.get_submodule(sight.name).register_forward_hook(lambda _module, _given, said: probe(said))
    try:
        with evaluation.mode(sight.network):
            explained = LayerGradCam(sight.network, probe.planes)
            found: Any = explained.attribute(image.requires_grad_(), target=answer, relu_attributions=True)
    finally:
        handle.remove()
    rows: Tensor = found.detach()[0, 0]
    return rows / rows.max() if rows.any() else rows


def _said(network: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """What each layer said that has weights and speaks once, in the order in which they are done; "" is the answer."""
    outputs: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def listen(name: str) -> Callable[[nn.Module, object, object], None]:
        def hear(module: nn.Module, _given: object, said: object) -> None:
            calls[name] += 1
            tokens = isinstance(said, Tensor) and said.ndim == 3
            if isinstance(said, Tensor) and (not tokens or isinstance(module, NORMS)):
                outputs[name] = said

        return hear

    weighted = {name: module for name, module in network.named_modules() if any(True for _ in module.parameters())}
    handles = [module.register_forward_hook(listen(name)) for name, module in weighted.items()]
    try:
        with evaluation.mode(network), torch.enable_grad():
            network(example.requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return {name: said for name, said in outputs.items() if calls[name] == 1}


def _layout(said: Tensor) -> Layout | None:
    shape = said.shape
    if said.ndim == 4 and shape[2] == shape[3] >= LEAST:
        return Layout(lambda given: given, lambda planes, _said: planes)
    if said.ndim == 4 and shape[1] == shape[2] >= LEAST:
        return Layout(lambda given: given.permute(0, 3, 1, 2), lambda planes, _said: planes.permute(0, 2, 3, 1))
    if said.ndim == 3 and math.isqrt(shape[1]) >= LEAST:
        return _of_tokens(math.isqrt(shape[1]))
    return None


def _of_tokens(side: int) -> Layout:
    """Those of the class and other registers come before those of the picture."""

    def planes(said: Tensor) -> Tensor:
        return said[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))

    def back(planes: Tensor, said: Tensor) -> Tensor:
        return torch.cat([said[:, : -(side**2)], planes.flatten(2).transpose(1, 2)], dim=1)

    return Layout(planes, back)
