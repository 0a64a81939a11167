"""From floating point to integers by looking at a few pictures: scales, ranges, rounding, biases."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.params import WeightBits
from stages.core.quantized import grid, inserting, integers
from stages.core.quantized.inserting import Layer, Order
from stages.core.quantizing import correcting, looking, ranges, rounding
from stages.core.running import progress
from stages.core.running.errors import Refusal

Bits = dict[str, WeightBits]  # of layers, by name; a layer that is not in it stays in floating point
FINE = 2**6  # codes
Errors = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Integers:
    """`merged` is the same network in floating point; `free` layers have the bits of most; `errors` tells what rounding
    costs each layer, if it was measured."""

    network: nn.Module
    merged: nn.Module
    weights: Bits
    free: tuple[str, ...]
    flows: dict[str, int] = field(default_factory=dict)
    errors: Errors = field(default_factory=dict)


@torch.no_grad()
def calibrate(
    network: nn.Module,
    settings: params.Integer,
    images: Sequence[Tensor],
    seed: int,
    allotted: Mapping[str, WeightBits] | None = None,
) -> Integers:
    """An integer network whose ranges come from these normalised pictures."""
    merged, integer = inserting.insert(network, images[0].shape[-1], settings.equalize_iterations)
    merged, integer = merged.to(images[0].device), integer.to(images[0].device).eval()
    order = inserting.order(integer, images[0][:1])
    weights, free = bits(order, settings)
    weights.update(allotted or {})
    found = Integers(integer, merged.eval(), weights, free)
    found.flows.update(bits_of_flows(integer, order, settings))
    integers.prepare(integer, merged, found.weights, found.flows)
    for name, layer in inserting.layers(integer):
        regrid(layer, found.weights[name], settings.scales)
    if not isinstance(settings.rounding, params.Nearest):
        find_ranges(integer, settings, images)
        found.errors.update(_round(found, order, settings.rounding, images, seed))
    if settings.correct != "nothing":
        with exact(integer, weights=False):
            correcting.correct(integer, merged, settings.correct, images)
    find_ranges(integer, settings, images)
    _refuse_infinite(integer)
    return found


def bits(order: Order, settings: params.Integer) -> tuple[Bits, tuple[str, ...]]:
    """As the settings say; where they are to be allotted, the most that there are. With the layers that have no bits
    of their own."""
    wanted = settings.weights
    own: Bits = dict.fromkeys((order.layers[0], order.layers[-1]), settings.ends)
    for name, few in settings.layers.items():
        own |= dict.fromkeys(_named(name, order.layers, "layers"), few)
    kept = {layer for name in settings.keep for layer in _named(name, order.layers, "keep")}
    if kept == set(order.layers):
        raise Refusal("quantize.method.keep leaves every layer in floating point: nothing would become integer")
    common: WeightBits = wanted.choices[0] if isinstance(wanted, params.Auto) else wanted
    found: Bits = {name: own.get(name, common) for name in order.layers if name not in kept}
    return found, tuple(name for name in found if name not in own)


def bits_of_flows(integer: nn.Module, order: Order, settings: params.Integer) -> dict[str, int]:
    """Flows that share a grid have the most bits that any of them is to have."""
    wanted = {
        name: settings.ends if name in order.ends else settings.activations for name, _ in inserting.flows(integer)
    }
    most: dict[int, int] = {}
    for name, flow in inserting.flows(integer):
        key = id(inserting.grid_of(flow))
        most[key] = max(most.get(key, 0), wanted[name])
    return {name: most[id(inserting.grid_of(flow))] for name, flow in inserting.flows(integer)}


def _named(name: str, layers: Iterable[str], entry: str) -> list[str]:
    """A layer, or all layers of a block."""
    found = [one for one in layers if one == name or one.startswith(f"{name}.")]
    if not found:
        raise Refusal(f"quantize.method.{entry}: no layer {name}; there are {', '.join(layers)}")
    return found


def regrid(layer: Layer, bits: WeightBits, scales: Literal["channel", "tensor"]) -> None:
    """So many bits, and the scale that suits these weights then."""
    weights: Tensor = layer.weight.detach()  # pyright: ignore[reportAssignmentType]
    one = inserting.grid_of(layer.weight_quant)
    one.levels = grid.of_weights(bits)
    by = "extremes" if len(one.levels) > 2**7 else "mse"
    scale = ranges.steps(weights.flatten(1), one.levels, by, scales)
    one.set(scale[0] if scales == "tensor" else scale)


def find_ranges(integer: nn.Module, settings: params.Integer, images: Sequence[Tensor]) -> None:
    """Of what flows while the weights are rounded, and nothing else is."""
    grids = {id(one): one for one in (inserting.grid_of(flow) for _, flow in inserting.flows(integer))}
    seen = {key: ranges.Histogram() for key in grids}
    hooks = [one.register_forward_pre_hook(_adds_to(seen[key])) for key, one in grids.items()]
    with exact(integer, weights=False):
        for batch in images:
            integer(batch)
    for hook in hooks:
        hook.remove()
    for key, one in grids.items():
        histogram = seen[key] if settings.zero_points or seen[key].lowest == 0 else seen[key].mirrored()
        low, high = ranges.RANGES[settings.range.name](settings.range, histogram, len(one.levels))
        _span(one, low, high, settings.zero_points)


def _adds_to(histogram: ranges.Histogram) -> Any:
    return lambda _, given: histogram.add(given[0])


def _span(one: grid.Grid, low: float, high: float, zero_points: bool) -> None:
    """Zero is one of the codes, so that padding and ReLU are exact. Signed numbers without a zero point of their own
    have it in the middle."""
    highest = one.levels.highest
    middle = (highest + 1) // 2
    zero, step = float(middle), max(-low, high) / (highest - middle)
    if low == 0 or zero_points:
        step = (high - low) / highest
        zero = round(-low / step) if step else 0.0
        if highest > FINE and 0 < zero < highest:  # both ends get a code, where so many leave a step to spare
            step = max(-low / zero, high / (highest - zero))
    one.set(one.scale.new_tensor(max(step, grid.TINIEST)))
    one.zero.fill_(zero)


@contextmanager
def exact(integer: nn.Module, *, weights: bool = True, flows: bool = True) -> Iterator[None]:
    """Without the rounding of weights, of flows, and of biases."""
    grids = [inserting.grid_of(layer.weight_quant) for _, layer in inserting.layers(integer) if weights]
    grids += [inserting.grid_of(flow) for _, flow in inserting.flows(integer) if flows]
    biases: list[Any] = [layer.bias_quant for _, layer in inserting.layers(integer)]
    was = [(one, one.on) for one in grids], [(bias, bias.disable_quant) for bias in biases]
    for one in grids:
        one.on = False
    for bias in biases:
        bias.disable_quant = True
    try:
        yield
    finally:
        for one, on in was[0]:
            one.on = on
        for bias, disabled in was[1]:
            bias.disable_quant = disabled


def _round(found: Integers, order: Order, settings: params.Rounding, images: Sequence[Tensor], seed: int) -> Errors:
    """Layer by layer in the order of the network, each for the inputs that those before it give now."""
    errors: Errors = {}
    for name in progress.track(order.layers, settings.name, len(order.layers)):
        if name not in found.weights:
            continue
        layer: Any = found.network.get_submodule(name)
        one = inserting.grid_of(layer.weight_quant)
        scale = one.scale.expand(len(layer.weight))[:, None]
        rows, steps = (part.unflatten(0, (_groups(layer), -1)) for part in (layer.weight.flatten(1), scale))
        seen = looking.look(found.merged, found.network, name, images)
        rounded = rounding.round(settings, rows, steps, one.levels, seen, seed, zeros=rows == 0)
        layer.weight.data = (rounded.codes * steps).view_as(layer.weight)
        errors[name] = {"nearest": rounded.nearest.mean().item(), "chosen": rounded.error.mean().item()}
    return errors


def _groups(layer: Any) -> int:
    return getattr(layer, "groups", 1)


def _refuse_infinite(integer: nn.Module) -> None:
    broken = [name for name, values in integer.state_dict().items() if not torch.isfinite(values).all()]
    if broken:
        raise Refusal(f"calibration gave a value that is not finite in {broken[0]}: look at the calibration pictures")
