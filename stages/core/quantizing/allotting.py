"""How many bits each layer gets: as few as a budget asks, or as few as the accuracy bears."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import LinearConstraint, milp
from torch import nn

from stages.core import params
from stages.core.params import WeightBits
from stages.core.quantized import grid, inserting
from stages.core.quantizing import calibration
from stages.core.quantizing.calibration import Bits, Integers
from stages.core.running import progress
from stages.core.running.errors import Refusal

FLOAT = 4  # bytes
TRIES = 8  # budgets, halved towards the smallest that the accuracy bears


@dataclass(frozen=True)
class Choice:
    """One layer at so many bits, all others as wide as they may be."""

    layer: str
    bits: WeightBits
    bytes: int
    val_loss: float
    val_accuracy: float


def choices(
    made: Integers,
    wanted: params.Auto,
    scales: Literal["channel", "tensor"],
    judge: Callable[[nn.Module], Mapping[str, float]],
) -> list[Choice]:
    """What each layer whose bits are free bears, on val."""
    if not made.free:
        raise Refusal("quantize.method.weights: no layer's bits are free: take some out of layers or of keep")
    layers = dict(inserting.layers(made.network))
    found: list[Choice] = []
    for name in progress.track(made.free, "what each layer bears", len(made.free)):
        for bits in wanted.choices:
            calibration.regrid(layers[name], bits, scales)
            found.append(Choice(name, bits, stored(layers[name], bits), **judge(made.network)))
        calibration.regrid(layers[name], made.weights[name], scales)
    return found


def allot(
    made: Integers, found: Sequence[Choice], budget: params.Bytes | params.Drop, drop: Callable[[Bits], float]
) -> Bits:
    """`drop` measures what accuracy on val falls by with such bits."""
    fixed = size(made, {name: bits for name, bits in made.weights.items() if name not in made.free})
    least, most = (sum(pick(one.bytes for one in own) for own in _by_layer(found)) for pick in (min, max))
    if isinstance(budget, params.Bytes):
        if fixed + least > budget.at_most:
            raise Refusal(
                f"quantize.method.weights: at the fewest bits of choices the weights take {fixed + least} bytes, more "
                f"than {budget.at_most}: raise at_most, add fewer bits to choices, or lower ends"
            )
        return best(found, budget.at_most - fixed)
    widest: Bits = {own[0].layer: max(own, key=lambda one: params.width(one.bits)).bits for own in _by_layer(found)}
    lost = drop(widest)
    if lost > budget.at_most:
        raise Refusal(
            f"quantize.method.weights: even at the most bits of choices accuracy on val falls by {lost:.2%}, more than "
            f"{budget.at_most:.2%}: raise at_most, add more bits to choices, or look at range and rounding"
        )
    taken = widest
    for _ in range(TRIES):
        middle = (least + most) // 2
        narrower = best(found, middle)
        if drop(narrower) <= budget.at_most:
            taken, most = narrower, middle
        else:
            least = middle
    return taken


def best(found: Sequence[Choice], limit: int) -> Bits:
    """The least sum of losses within so many bytes, one choice for each layer: a knapsack, solved exactly."""
    layers = sorted({one.layer for one in found})
    once = np.array([[one.layer == layer for one in found] for layer in layers], float)
    sizes = np.array([[one.bytes for one in found]], float)
    limits = [LinearConstraint(once, 1, 1), LinearConstraint(sizes, 0, limit)]  # pyright: ignore[reportArgumentType]
    losses, whole = np.array([one.val_loss for one in found]), np.ones(len(found))
    solved: Any = milp(losses, integrality=whole, bounds=(0, 1), constraints=limits)
    return {one.layer: one.bits for one, share in zip(found, solved.x, strict=True) if share > 0.5}


def size(made: Integers, bits: Mapping[str, WeightBits]) -> int:
    """Bytes of the weights of these layers, and of those that stay in floating point."""
    layers = dict(inserting.layers(made.network))
    kept = [module.layer.weight for module in made.network.modules() if isinstance(module, inserting.Kept)]
    return sum(stored(layers[name], few) for name, few in bits.items()) + FLOAT * sum(one.numel() for one in kept)


def stored(layer: Any, bits: WeightBits) -> int:
    """Codes and scales; where many weights are zero, a mask and the codes of the others."""
    number, width = layer.weight.numel(), (len(grid.of_weights(bits)) - 1).bit_length()
    masked = number + int(layer.weight.count_nonzero()) * width
    return -(-min(number * width, masked) // 8) + FLOAT * inserting.grid_of(layer.weight_quant).scale.numel()


def _by_layer(found: Sequence[Choice]) -> list[list[Choice]]:
    layers: dict[str, list[Choice]] = {}
    for one in found:
        layers.setdefault(one.layer, []).append(one)
    return list(layers.values())
