"""What each layer bears: the loss on val when it alone is cut, nothing learnt after (Li et al. 2017, section 3.2).

A layer here is all that shrinks together, named by the layer that makes the channels, or the heads of an attention.
"""

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from stages.core.running import progress

RISING = 1e-9  # of a loss, for a whole layer: nothing is free, so that flat curves rise too

Cut = Callable[[Mapping[str, float]], nn.Module]  # shares, by layer, give a narrower network
Judge = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class Tried:
    layer: str
    share: float
    val_accuracy: float
    val_loss: float


def scan(layers: Sequence[str], shares: Sequence[float], cut: Cut, judge: Judge) -> list[Tried]:
    whole = Tried("", 0.0, **judge(cut({})))
    found: list[Tried] = []
    for layer in progress.track(layers, "sensitivity", len(layers)):
        found.append(Tried(layer, 0.0, whole.val_accuracy, whole.val_loss))
        found += [Tried(layer, share, **judge(cut({layer: share}))) for share in shares]
    return found


def write(path: Path, found: Sequence[Tried]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(Tried)])
        table.writeheader()
        table.writerows(vars(one) for one in found)


def shares(found: Sequence[Tried], level: float) -> dict[str, float]:
    """Every layer loses as much as raises the loss by the same, which is what a share `level` of all tried cuts stay
    below; at most the largest share that was tried."""
    layers = dict.fromkeys(one.layer for one in found)
    curves = {layer: _curve([one for one in found if one.layer == layer]) for layer in layers}
    raised = np.sort(np.concatenate([curve for curve, _ in curves.values()]))
    allowed = float(np.interp(level * (len(raised) - 1), np.arange(len(raised)), raised))
    return {layer: float(np.interp(allowed, curve, tried)) for layer, (curve, tried) in curves.items()}


def _curve(tried: Sequence[Tried]) -> tuple[np.ndarray, np.ndarray]:
    """How far the loss has risen on the way to each share; a loss that falls again is luck."""
    losses, shares = (np.array(numbers) for numbers in zip(*((one.val_loss, one.share) for one in tried), strict=True))
    return np.maximum.accumulate(losses - losses[0]) + RISING * shares, shares
