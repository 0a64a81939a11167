"""A network said in plain layers: what a library's own convolutions and linear layers do, done by those of PyTorch.

Exporting and quantizing know nn.Conv2d, nn.Linear and no subclass of theirs. What such a layer really asks for, and
which module reads what another one wrote, is seen by watching one forward pass, whatever code stands between them.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.overrides import TorchFunctionMode

from stages.core.running.errors import Refusal

PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.Linear)
MERGED = 1e-3  # of the largest answer, the most that other words may change it


@dataclass(frozen=True)
class Asked:
    """A product as the library was asked for it: perhaps with another weight, or with padded pictures."""

    weight: Tensor
    bias: Tensor | None
    padding: Any
    padded: tuple[int, ...]  # rows and columns more than the module was given


@dataclass
class Watched:
    """What one forward pass showed. A reader is the first module that takes what another one gave, unchanged; the
    writer is who gave it, to any module."""

    calls: Counter[str] = field(default_factory=Counter)
    readers: dict[str, str] = field(default_factory=dict)
    writers: dict[str, str] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)


def unwrap(network: nn.Module, example: Tensor) -> nn.Module:
    """In place: plain layers for subclasses of them."""
    for name, asked in watch(network, example).asked.items():
        network.set_submodule(name, _plain(network.get_submodule(name), asked))
    return network


def merge(network: nn.Module, example: Tensor) -> nn.Module:
    """In place: plain layers, BatchNorm merged into the product before it, a bias in each product."""
    before = answer(network, example)
    watched = watch(unwrap(network, example), example)
    for name, reader in watched.readers.items():
        layer, norm = network.get_submodule(name), network.get_submodule(reader)
        once = watched.calls[name] == watched.calls[reader] == 1
        if once and type(layer) in PRODUCTS and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            _merge(layer, norm)
            network.set_submodule(reader, _activation(norm))
    for layer in network.modules():
        if type(layer) in PRODUCTS and layer.bias is None:  # where a corrected bias will stand
            layer.bias = nn.Parameter(torch.zeros(len(layer.weight)))  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    moved = (answer(network, example) - before).abs().max()
    if moved > MERGED * before.abs().max():  # never true of a network that is not filled yet
        raise Refusal(f"{type(network).__name__} answers otherwise once its BatchNorm is merged: it is not quantized")
    return network


def watch(network: nn.Module, example: Tensor) -> Watched:
    """Tensors are told apart by identity and version, and kept alive so that no identity is given twice."""
    watched, running = Watched(), list[tuple[str, Tensor]]()
    writers: dict[tuple[int, int], str] = {}
    alive: list[Tensor] = []

    def reads(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            watched.calls[name] += 1
            if given and isinstance(given[0], Tensor):
                writer = writers.get(_version(given[0]))
                if writer and not isinstance(module, nn.Identity):
                    watched.readers.setdefault(writer, name)
                    watched.writers[name] = writer
                if _is_wrapped(module):
                    running.append((name, given[0]))

        return hook

    def writes(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: tuple[Any, ...], result: Any) -> None:
            if isinstance(result, Tensor) and not isinstance(module, nn.Identity):
                alive.append(result)
                writers[_version(result)] = name
            if _is_wrapped(module) and running:
                running.pop()

        return hook

    with _hooks(network, reads, writes), _Asking(running, watched.asked):
        answer(network, example)
    return watched


def answer(network: nn.Module, example: Tensor) -> Tensor:
    with torch.no_grad():
        return network(example)


class _Asking(TorchFunctionMode):
    """Sees what a subclass of a product asks of the library."""

    def __init__(self, running: list[tuple[str, Tensor]], asked: dict[str, Asked]) -> None:
        super().__init__()
        self.running, self.asked = running, asked

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.running and func in (functional.conv2d, functional.linear):
            name, given = self.running[-1]
            values, weight, *rest = args
            named = {"bias": None, "padding": 0} | dict(zip(("bias", "stride", "padding"), rest, strict=False))
            named |= kwargs or {}
            padded = tuple(after - before for after, before in zip(values.shape[2:], given.shape[2:], strict=True))
            self.asked[name] = Asked(weight, named["bias"], named["padding"], padded)
        return func(*args, **(kwargs or {}))


@contextmanager
def _hooks(network: nn.Module, reads: Callable[..., Any], writes: Callable[..., Any]) -> Iterator[None]:
    hooks = []
    for name, module in network.named_modules():
        if not list(module.children()) or isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            hooks += [module.register_forward_pre_hook(reads(name)), module.register_forward_hook(writes(name))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _version(tensor: Tensor) -> tuple[int, int]:
    """What is written into a tensor in place makes it another one."""
    return id(tensor), tensor._version


def _is_wrapped(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear) and type(module) not in PRODUCTS


def _plain(layer: Any, asked: Asked) -> nn.Module:
    """The pictures of a network have one size, so that a padding that follows from the size is a constant."""
    result: Any
    if isinstance(layer, nn.Linear):
        result = nn.Linear(layer.in_features, layer.out_features)
    else:
        result = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # pyright: ignore[reportArgumentType]
            layer.stride,  # pyright: ignore[reportArgumentType]
            asked.padding,
            layer.dilation,  # pyright: ignore[reportArgumentType]
            layer.groups,
        )
    result.weight = nn.Parameter(asked.weight.detach().clone())
    result.bias = None if asked.bias is None else nn.Parameter(asked.bias.detach().clone())
    if isinstance(layer, nn.Linear) or not any(asked.padded):
        return result
    rows, columns = asked.padded
    around = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return nn.Sequential(nn.ZeroPad2d(around), result)


def _merge(layer: Any, norm: Any) -> None:
    fuse: Callable[..., Any] = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    numbers = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    layer.weight, layer.bias = fuse(layer.weight, layer.bias, *numbers)


def _activation(norm: nn.Module) -> nn.Module:
    """timm's normalisation holds what follows it."""
    return nn.Sequential(norm.drop, norm.act) if hasattr(norm, "act") else nn.Identity()  # pyright: ignore[reportArgumentType]
