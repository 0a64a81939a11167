"""What a part of an attention is worth, by the numbers that would go with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

Read = Callable[[nn.Parameter], Tensor]


@dataclass(frozen=True)
class Group:
    """Numbers that go together, along the last axis: rows of queries, keys or values, and columns of the projection.

    Rows are with their bias. They are read off the weights, or off their gradients.
    """

    rows: Callable[[Read], Tensor]
    columns: Callable[[Read], Tensor]

    def own(self) -> Tensor:
        return self.rows(_weights)

    def all(self, read: Read) -> Tensor:
        return torch.cat([self.rows(read), self.columns(read)], -1)


def _weights(parameter: nn.Parameter) -> Tensor:
    return parameter.detach()


def _gradients(parameter: nn.Parameter) -> Tensor:
    return cast(Tensor, parameter.grad)


def _l1(group: Group) -> Tensor:
    return group.own().norm(p=1, dim=-1)


def _l2(group: Group) -> Tensor:
    return group.own().norm(dim=-1)


def _group_norm(group: Group) -> Tensor:
    return group.all(_weights).norm(dim=-1)


def _squares(group: Group) -> Tensor:
    return group.all(_weights).square().sum(-1)


def _distance(group: Group) -> Tensor:
    own = group.own()
    flat = own.flatten(0, -2)
    return torch.cdist(flat, flat).sum(1).view(own.shape[:-1])


def _first_order(group: Group) -> Tensor:
    return (group.all(_weights) * group.all(_gradients)).sum(-1).abs()


def _second_order(group: Group) -> Tensor:
    return (group.all(_weights).square() * group.all(_gradients)).sum(-1)


def random(group: Group) -> Tensor:
    own = group.own()
    return torch.rand(own.shape[:-1], device=own.device)


def _of_the_mean(units: Tensor) -> Tensor:
    return units / units.mean().clamp_min(torch.finfo(units.dtype).tiny)


def _of_what_remains(units: Tensor) -> Tensor:
    return units / units.flip(0).cumsum(0).flip(0).clamp_min(torch.finfo(units.dtype).tiny)


@dataclass(frozen=True)
class Importance:
    """What a part of an attention is worth, and what that says beside the parts of others."""

    score: Callable[[Group], Tensor]
    comparable: Callable[[Tensor], Tensor] = _of_the_mean


IMPORTANCES: Mapping[str, Importance | None] = {
    "l1": Importance(_l1),
    "l2": Importance(_l2),
    "group_norm": Importance(_group_norm),
    "bn_scale": None,  # attention has no BatchNorm that could tell
    "lamp": Importance(_squares, _of_what_remains),
    "fpgm": Importance(_distance),
    "taylor": Importance(_first_order),
    "hessian": Importance(_second_order),
    "random": Importance(random),
}
