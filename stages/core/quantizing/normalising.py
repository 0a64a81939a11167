"""BatchNorm for layers that learn in few bits, which folds into their scales and biases without touching a code."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stages.core.quantized import inserting
from stages.core.quantized.inserting import value

MOMENTUM = 0.1
TINIEST = 1e-6  # share of a channel's spread
FARTHEST = 16.0  # times that a channel may be louder than its weights make it


class Normalised(nn.Module):
    """An integer layer and a BatchNorm behind it, that stands still after `settled_after` steps of training."""

    def __init__(self, layer: Any, mean: Tensor, variance: Tensor) -> None:
        """Its channels get this mean and variance, which are those of the layer in floating point."""
        super().__init__()
        self.layer, self.output, bias = layer, layer.output_quant, layer.bias.detach()
        kind: Any = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
        self.norm = kind(len(mean), momentum=MOMENTUM).to(mean.device)
        variance = variance.clamp(min=TINIEST * float(variance.max()) + self.norm.eps)
        self.norm.running_mean, self.norm.running_var = mean - bias, variance
        self.norm.weight.data = (variance + self.norm.eps).sqrt()
        self.norm.bias.data = mean.clone()
        layer.bias, layer.output_quant = None, nn.Identity()
        self.steps, self.settled_after = 0, 0

    def forward(self, given: Any) -> Any:
        if self.training:
            self.norm.train(self.steps < self.settled_after)
            self.steps += 1
        if not self.norm.training:
            self._bound()
        return value(self.output(self.norm(value(self.layer(given)))))

    @torch.no_grad()
    def _bound(self) -> None:
        """A channel whose weights all became zero has no spread, and would make of any noise what it had before."""
        least = (self.norm.weight / FARTHEST).square()
        self.norm.running_var = torch.maximum(self.norm.running_var, least)  # pyright: ignore[reportArgumentType]

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        self.steps = int(state)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The same answers from scale and bias; the codes stay."""
        self._bound()
        layer: Any = self.layer
        factor = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        one = inserting.grid_of(layer.weight_quant)
        one.set(one.scale * factor)
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias = nn.Parameter(self.norm.bias - self.norm.running_mean * factor)
        layer.output_quant = self.output
        return layer


class Upright:
    """A constraint: a channel that BatchNorm turns over would need other codes."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = [module.norm for module in network.modules() if isinstance(module, Normalised)]

    def before(self) -> None:
        pass

    @torch.no_grad()
    def after(self, rate: float) -> None:
        for norm in self._norms:
            norm.weight.clamp_(min=TINIEST)


@torch.no_grad()
def normalise(integer: nn.Module, merged: nn.Module, names: Sequence[str], images: Sequence[Tensor]) -> None:
    """In place: these layers, as wide-spread as they are in floating point, however much rounding took."""
    for name, (mean, variance) in _statistics(merged, names, images).items():
        integer.set_submodule(name, Normalised(integer.get_submodule(name), mean, variance))


def fold(integer: nn.Module) -> None:
    """In place."""
    for name, module in list(integer.named_modules()):
        if isinstance(module, Normalised):
            integer.set_submodule(name, module.folded())


def settle_after(integer: nn.Module, steps: int) -> None:
    """Counted from now."""
    for module in integer.modules():
        if isinstance(module, Normalised):
            module.steps, module.settled_after = 0, steps


def _statistics(merged: nn.Module, names: Sequence[str], images: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    answers: dict[str, list[Tensor]] = {name: [] for name in names}

    def hook(name: str) -> Any:
        def add(_: Any, __: Any, result: Tensor) -> None:
            channels = result.transpose(0, 1).flatten(1).double()
            answers[name].append(torch.stack([channels.mean(1), channels.square().mean(1)]) * len(result))

        return add

    hooks = [merged.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    for batch in images:
        merged(batch)
    for handle in hooks:
        handle.remove()
    moments = {name: sum(some[1:], some[0]) / sum(map(len, images)) for name, some in answers.items()}
    return {name: (mean.float(), (squares - mean.square()).float()) for name, (mean, squares) in moments.items()}
