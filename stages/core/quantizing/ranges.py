"""From where to where the codes reach: what flows between layers, and the weights of a layer.

Contract of a range: settings, a histogram and the number of levels give lowest and highest, with zero between them.
Both are zero only where nothing but zeros was seen.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import rel_entr
from torch import Tensor
from torch.nn import functional

from stages.core import params
from stages.core.quantized.grid import TINIEST, Levels
from stages.core.running.errors import Refusal

HALF = 8192  # bins on either side of zero
FIRST_LIMIT = 2.0**-64
CLIPS = np.geomspace(1, 1 / 256, 150)  # of the extreme, that a range may reach
ROUNDS = 3  # in which each end looks for its best place, the other one held
COARSE = 4  # bins in one, for what compares distributions: 2048 on either side, as TensorRT
REACHES = 200  # ranges whose distributions are compared
SHRUNKEN = torch.logspace(0, -5, 81, base=2).tolist()  # scales of weights, of that which holds the largest

Ends = tuple[float, float]


class Histogram:
    """Of what flows through one point, in memory that does not grow.

    Where the range grows, it doubles and neighbouring bins become one: its limit is a power of two, whatever came
    first. Extremes are exact. Zeros are counted apart, since every range holds them exactly.
    """

    def __init__(self) -> None:
        self.lowest, self.highest, self.limit = 0.0, 0.0, FIRST_LIMIT
        self._counts = torch.zeros(2 * HALF, dtype=torch.int64)
        self._zeros = torch.zeros((), dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        flat = values.detach().flatten().float()
        lowest, highest = (float(end) for end in flat.aminmax())
        if not math.isfinite(highest - lowest):
            raise Refusal("a number that flows between layers is not finite: look at the calibration pictures")
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        self._counts, self._zeros = self._counts.to(flat.device), self._zeros.to(flat.device)
        while self.limit <= max(-self.lowest, self.highest):
            self._counts = functional.pad(self._counts.view(-1, 2).sum(1), (HALF // 2, HALF // 2))
            self.limit *= 2
        bins = (flat / self.width).floor().long() + HALF
        zeros = (flat == 0).sum()
        self._counts += torch.bincount(bins, minlength=2 * HALF)
        self._counts[HALF] -= zeros
        self._zeros += zeros

    def mirrored(self) -> "Histogram":
        """As if all had come with either sign."""
        both = copy.copy(self)
        both.highest = max(-self.lowest, self.highest)
        both.lowest = -both.highest
        both._counts = self._counts + self._counts.flip(0)
        both._zeros = 2 * self._zeros
        return both

    @property
    def width(self) -> float:
        return self.limit / HALF

    @property
    def counts(self) -> np.ndarray:
        """Of what is not zero."""
        return self._counts.cpu().numpy()

    @property
    def zeros(self) -> int:
        return int(self._zeros)

    @property
    def centres(self) -> np.ndarray:
        return (np.arange(-HALF, HALF) + 0.5) * self.width


def _extremes(_settings: params.Extremes, histogram: Histogram, _levels: int) -> Ends:
    return histogram.lowest, histogram.highest


def _percentile(settings: params.Percentile, histogram: Histogram, _levels: int) -> Ends:
    """Of all numbers, zeros too; of as many on either side, where there are two."""
    counts = histogram.counts.copy()
    counts[HALF] += histogram.zeros
    below = np.cumsum(counts)
    ranks = (below[-1] - 1) * np.array([100 - settings.percentile, settings.percentile]) / 100
    down, up = (
        histogram.centres[np.searchsorted(below, whole, "right")] for whole in (np.floor(ranks), np.ceil(ranks))
    )
    low, high = down + (up - down) * (ranks % 1)
    return max(min(float(low), 0.0), histogram.lowest), min(max(float(high), 0.0), histogram.highest)


def _squared_error(_settings: params.SquaredError, histogram: Histogram, levels: int) -> Ends:
    taken = histogram.counts > 0
    counts, centres = histogram.counts[taken], histogram.centres[taken]
    if not len(counts):
        return histogram.lowest, histogram.highest
    lows, highs = CLIPS * histogram.lowest, CLIPS * histogram.highest
    low, high = min(zip(lows, highs, strict=True), key=lambda ends: _missed(centres, counts, *ends, levels))
    for _ in range(ROUNDS):
        high = min(highs, key=lambda end: _missed(centres, counts, low, end, levels))
        low = min(lows, key=lambda end: _missed(centres, counts, end, high, levels))
    return float(low), float(high)


def _missed(centres: np.ndarray, counts: np.ndarray, low: float, high: float, levels: int) -> float:
    """Of squares, on the grid that such a range gives: zero has a code."""
    step = (high - low) / (levels - 1)
    zero = np.rint(-low / step)
    codes = np.clip(np.rint(centres / step) + zero, 0, levels - 1)
    return float(counts @ np.square(centres - step * (codes - zero)))


def _entropy(_settings: params.Entropy, histogram: Histogram, levels: int) -> Ends:
    """Reaching as far to both sides, but nowhere beyond what was seen."""
    counts = histogram.counts.reshape(-1, COARSE).sum(1)
    taken = counts.nonzero()[0]
    if not len(taken):
        return histogram.lowest, histogram.highest
    middle, first, end = len(counts) // 2, taken[0], taken[-1] + 1
    farthest = max(middle - first, end - middle)
    reaches = np.unique(np.linspace(1, farthest, REACHES).round().astype(int))
    slices = {reach: (max(middle - reach, first), min(middle + reach, end)) for reach in reaches}
    best = min(
        (reach for reach, (start, stop) in slices.items() if stop - start >= min(levels, end - first)),
        key=lambda reach: divergence(counts, *slices[reach], levels),
    )
    reach = float(best) * COARSE * histogram.width
    return max(-reach, histogram.lowest), min(reach, histogram.highest)


def divergence(counts: np.ndarray, start: int, stop: int, levels: int) -> float:
    """Of the bins between, which hold what is clipped at their ends, from what so many levels tell of them."""
    inside = counts[start:stop].astype(float)
    clipped = inside.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    taken = clipped > 0
    edges = np.arange(levels) * len(inside) // levels
    means = np.add.reduceat(inside, edges) / np.maximum(np.add.reduceat(taken, edges, dtype=int), 1)
    told = np.where(taken, np.repeat(means, np.diff(np.append(edges, len(inside)))), 0)
    return float(rel_entr(clipped / clipped.sum(), told / told.sum()).sum()) if told.any() else math.inf


RANGES: Mapping[str, Callable[[Any, Histogram, int], Ends]] = {
    "minmax": _extremes,
    "percentile": _percentile,
    "mse": _squared_error,
    "entropy": _entropy,
}


def steps(
    weights: Tensor, levels: Levels, by: Literal["extremes", "mse"], each: Literal["channel", "tensor"]
) -> Tensor:
    """Scales of a matrix [channels, columns]; with three levels or two those that err least, whatever `by` says."""
    rows = weights if each == "channel" else weights.reshape(1, -1)
    if levels.step > 1:
        found = rows.abs().sum(1) / (rows != 0).sum(1).clamp(min=1)  # pruned weights stay zero
    elif len(levels) == 3:
        found = _ternary(rows)
    else:
        found = torch.maximum(rows.amax(1) / levels.highest, rows.amin(1) / levels.lowest)
        found = _least_error(rows, found, levels) if by == "mse" else found
    return found.clamp(min=TINIEST)


def _ternary(rows: Tensor) -> Tensor:
    """The mean of the k largest, with the k that explains most (Li and Liu 2016 estimate it)."""
    sums = rows.abs().sort(1, descending=True).values.cumsum(1)
    sizes = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    best = (sums.square() / sizes).argmax(1, keepdim=True)
    return (sums / sizes).gather(1, best).squeeze(1)


def _least_error(rows: Tensor, largest: Tensor, levels: Levels) -> Tensor:
    best, least = largest, torch.full_like(largest, math.inf)
    for share in SHRUNKEN:
        scale = (largest * share).clamp(min=TINIEST).unsqueeze(1)
        missed = ((rows / scale).round().clamp(levels.lowest, levels.highest) * scale - rows).square().sum(1)
        best = torch.where(missed < least, largest * share, best)
        least = torch.minimum(missed, least)
    return best
