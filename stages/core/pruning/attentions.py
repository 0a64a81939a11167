"""Attention of any library by its form, without the rows and columns of whole heads or of dimensions of its heads.

The form: `qkv` makes queries, keys and values of all heads, in this order, `num_heads` counts them, `proj` reads them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Attention:
    module: Any
    heads: int
    dimension: int

    @property
    def width(self) -> int:
        return self.heads * self.dimension

    @property
    def shape(self) -> tuple[int, ...]:
        return self.heads, self.dimension, self.module.qkv.in_features, self.module.proj.out_features


@dataclass(frozen=True)
class Left:
    """The rows that stay, of queries as of keys and of values: heads x dimensions, of those of one part."""

    queries: Tensor
    values: Tensor


def of(network: nn.Module) -> dict[str, Attention]:
    found = {name: _read(module) for name, module in network.named_modules()}
    return {name: attention for name, attention in found.items() if attention}


def _read(module: nn.Module) -> Attention | None:
    qkv, proj, heads = (getattr(module, name, None) for name in ("qkv", "proj", "num_heads"))
    if not isinstance(qkv, nn.Linear) or not isinstance(proj, nn.Linear) or type(heads) is not int:
        return None
    fits = qkv.out_features == 3 * proj.in_features and proj.in_features % heads == 0
    return Attention(module, heads, proj.in_features // heads) if fits else None


@torch.no_grad()
def narrow(attention: Attention, left: Left) -> None:
    """What stays is all there is, and answers as it did beside the silent rest.

    Products of queries and keys are divided by the root of the dimension, which code may know as `scale` and PyTorch
    counts for itself: queries are scaled so that either comes to what it was.
    """
    module, (heads, dimension) = attention.module, left.queries.shape
    longer = (dimension / attention.dimension) ** 0.5
    for tensor in _tensors(module.qkv):
        tensor[: attention.width] *= longer
    if isinstance(getattr(module, "scale", None), float):
        module.scale /= longer
    for owner, key, axis, kept in (*_places(attention, left), *_tables(attention, left)):
        setattr(owner, key, _part(getattr(owner, key), axis, kept))
    width = heads * dimension
    module.qkv.out_features, module.proj.in_features = 3 * width, width
    for key, count in {"num_heads": heads, "head_dim": dimension, "attn_dim": width}.items():
        if hasattr(module, key):
            setattr(module, key, count)


@torch.no_grad()
def silence(attention: Attention, left: Left) -> None:
    """What does not stay is zero."""
    for owner, key, axis, kept in _places(attention, left):
        tensor: Tensor = getattr(owner, key)
        gone = torch.ones(tensor.shape[axis], dtype=torch.bool, device=tensor.device).index_fill(0, kept, False)
        tensor.index_fill_(axis, gone.nonzero().flatten(), 0.0)


def _places(attention: Attention, left: Left) -> Iterator[tuple[nn.Module, str, int, Tensor]]:
    """Whose tensors, along which axis, and what of it stays."""
    queries, values = left.queries.flatten(), left.values.flatten()
    rows = torch.cat([queries, attention.width + queries, 2 * attention.width + values])
    yield attention.module.qkv, "weight", 0, rows
    if attention.module.qkv.bias is not None:
        yield attention.module.qkv, "bias", 0, rows
    yield attention.module.proj, "weight", 1, values


def _tables(attention: Attention, left: Left) -> Iterator[tuple[nn.Module, str, int, Tensor]]:
    """What else the module learnt for each head, as Swin how much near places mean."""
    heads = left.queries[:, 0] // attention.dimension
    for key, tensor in attention.module.named_parameters(recurse=False):
        if tuple(tensor.shape).count(attention.heads) == 1:
            yield attention.module, key, tuple(tensor.shape).index(attention.heads), heads


def _tensors(layer: nn.Linear) -> list[Tensor]:
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]


def _part(whole: nn.Parameter, axis: int, kept: Tensor) -> nn.Parameter:
    """Gradients are cut along, for those who look at them next."""
    part = nn.Parameter(whole.detach().index_select(axis, kept), whole.requires_grad)
    part.grad = None if whole.grad is None else whole.grad.index_select(axis, kept)
    return part
