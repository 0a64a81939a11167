"""Weights become codes, by what their layer reads on the calibration pictures.

Contract of a method: settings and a task give codes within the levels, and zeros where nothing is free.

A layer is a matrix [..., channels, columns]; several of one shape, as the groups of a convolution, go at once. Of what
it reads, Gram matrices are enough: ||X~ s q - X w||^2 = s^2 q'Gq - 2 s q'Cw + w'Aw. All is computed in steps of the
grid, so that scales drop out, and in float64, since answers that hardly differ are subtracted.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stages.core import params
from stages.core.quantized.grid import Levels
from stages.core.running.errors import Refusal

BLOCK = 128  # columns between two products of whole matrices
LOW, HIGH = -0.1, 1.1  # AdaRound's sigmoid is stretched to, so that it can reach 0 and 1
RATE, FREE, HARDEST, SOFTEST = 0.01, 0.2, 2.0, 20.0
STRENGTH = 1.0  # of AdaRound's regulariser, where a weight that is off by a step costs 1


@dataclass(frozen=True)
class Seen:
    """Products of a layer's inputs, summed over calibration pictures [..., columns, columns].

    X is what the network in floating point gives the layer, X~ what the quantized network does.
    """

    gram: Tensor  # X~'X~
    cross: Tensor  # X~'X
    own: Tensor  # X'X

    def double(self) -> "Seen":
        return Seen(self.gram.double(), self.cross.double(), self.own.double())


@dataclass(frozen=True)
class Rounded:
    """Codes, and each channel's error with them and with the nearest ones."""

    codes: Tensor
    error: Tensor
    nearest: Tensor


@dataclass(frozen=True)
class Task:
    places: Tensor  # the weights, in steps of the grid
    free: Tensor  # whose codes need not be zero
    levels: Levels
    seen: Seen
    seed: int

    def nearest(self, places: Tensor) -> Tensor:
        return self._codes(self._counted(places).round())

    def below(self, places: Tensor) -> Tensor:
        """The code under it, that has another above."""
        return self._codes(self._counted(places).floor()).clamp(max=self.levels.highest - self.levels.step)

    def drawn(self, places: Tensor, chances: Tensor) -> Tensor:
        """The code above with the probability of what is left over the code below."""
        return self._codes((self._counted(places) + chances).floor())

    def _counted(self, places: Tensor) -> Tensor:
        return (places - self._offset) / self.levels.step

    def _codes(self, counts: Tensor) -> Tensor:
        return (self._offset + self.levels.step * counts).clamp(self.levels.lowest, self.levels.highest)

    @property
    def _offset(self) -> int:
        return self.levels.lowest % self.levels.step


@torch.no_grad()
def round(
    settings: params.Rounding,
    weights: Tensor,
    scale: Tensor,
    levels: Levels,
    seen: Seen,
    seed: int,
    zeros: Tensor | None = None,
) -> Rounded:
    """A channel keeps its nearest codes unless, on what was seen, the method errs less."""
    seen = seen.double()
    active = seen.gram.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    if not torch.isfinite(active + seen.own.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)).all():
        raise Refusal("a layer reads numbers that are not finite: look at the calibration pictures")
    free = torch.ones_like(weights, dtype=torch.bool) if zeros is None else ~zeros
    task = Task(weights.double() / scale.double(), free, levels, seen, seed)
    nearest = task.nearest(task.places) * free
    codes = torch.where(active > 0, ROUNDINGS[settings.name](settings, task), nearest)
    before, after = error(weights, scale, nearest, seen), error(weights, scale, codes, seen)
    kept = torch.where((after < before).unsqueeze(-1), codes, nearest) + 0.0  # no zero has a sign
    return Rounded(kept.float(), torch.minimum(before, after), before)


def error(weights: Tensor, scale: Tensor, codes: Tensor, seen: Seen) -> Tensor:
    """Of each channel's answers, squared, as a share of the answers' own squares (where those are 0, as it is)."""
    wanted, stored, seen = weights.double(), scale.double() * codes.double(), seen.double()
    answers = _product(wanted, seen.own, wanted)
    missed = answers - 2 * _product(stored, seen.cross, wanted) + _product(stored, seen.gram, stored)
    return missed.clamp(min=0) / answers.where(answers > 0, 1.0)


def _product(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    return ((left @ matrix) * right).sum(-1)


def _nearest(_settings: params.Nearest, task: Task) -> Tensor:
    return task.nearest(task.places) * task.free


def _gptq(settings: params.GPTQ, task: Task) -> Tensor:
    """What answers best for X, read from X~, is what is rounded: with equal inputs the weights, as in the paper.

    The paper factors the inverse of the Hessian, from the first column on. The Hessian itself, factored from the last
    column on, says the same.
    """
    factor, damping = _factored(task.seen.gram, settings.damping)
    lengths = factor.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    wanted = task.places @ task.seen.cross.mT + damping * task.places
    targets = torch.linalg.solve_triangular(factor, wanted.mT, upper=True).mT / lengths
    return _sweep(targets, (factor / lengths).triu(1), lambda places, _: task.nearest(places), task)


def _factored(gram: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """R with R R' = G + damping, upper triangular. What is singular all the same is damped more."""
    added = damping * _mean_square(gram)
    while True:
        damped = gram + added * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        factor, failed = torch.linalg.cholesky_ex(damped.flip(-2, -1))
        if not failed.any():
            return factor.flip(-2, -1), added
        added = 10 * added


def _mean_square(gram: Tensor) -> Tensor:
    """Of a column; of silence alone, 1."""
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return mean.where(mean > 0, 1.0)


def _gpfq(settings: params.GPFQ, task: Task) -> Tensor:
    squares = task.seen.gram.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    squares = squares.where(squares > 0, 1.0)
    targets = task.places @ task.seen.cross.tril().mT / squares
    chances = torch.rand(task.places.shape, generator=torch.Generator().manual_seed(task.seed), dtype=targets.dtype)
    chances = chances.to(targets.device)

    def choose(places: Tensor, column: int) -> Tensor:
        shrunk = SHRINKS[settings.penalty](places, settings.threshold)
        return task.drawn(shrunk, chances[..., column]) if settings.stochastic else task.nearest(shrunk)

    return _sweep(targets, (task.seen.gram / squares).triu(1), choose, task)


SHRINKS: Mapping[str, Callable[[Tensor, float], Tensor]] = {"l1": functional.softshrink, "l0": functional.hardshrink}


def _sweep(targets: Tensor, pull: Tensor, choose: Callable[[Tensor, int], Tensor], task: Task) -> Tensor:
    """Codes column by column: each column's target, less how the codes before it pull."""
    codes = torch.zeros_like(targets)
    columns = targets.shape[-1]
    for start in range(0, columns, BLOCK):
        block = slice(start, min(start + BLOCK, columns))
        places = targets[..., block] - codes[..., :start] @ pull[..., :start, block]
        for column in range(start, block.stop):
            codes[..., column] = choose(places[..., column - start], column) * task.free[..., column]
            places = places - codes[..., column, None] * pull[..., column, None, block]
    return codes


def _adaround(settings: params.AdaRound, task: Task) -> Tensor:
    """On all that was seen at once: of the loss, Gram matrices give the exact slope."""
    squares = _mean_square(task.seen.gram)
    gram = (task.seen.gram / squares).float()
    drift = (task.places @ (task.seen.cross - task.seen.gram).mT / squares).float()
    places, below, step = task.places.float(), task.below(task.places).float(), task.levels.step
    share = ((places - below) / step).clamp(0, 1)
    logits = ((share - LOW) / (HIGH - LOW)).logit().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=RATE)
    for iteration in range(settings.iterations):
        with torch.enable_grad():
            up = _stretched(logits)
            codes = (below + step * up) * task.free
            slope = 2 * ((codes.detach() - places) @ gram - drift)
            undecided = _undecided(up, iteration / settings.iterations)
            (codes * slope).sum().add(undecided).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (below + step * (_stretched(logits) >= 0.5)).double() * task.free


def _stretched(logits: Tensor) -> Tensor:
    return (logits.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)


def _undecided(up: Tensor, progress: float) -> Tensor:
    """Zero where all is up or down; in the beginning nothing is asked, then ever more (annealed as a cosine)."""
    annealed = (progress - FREE) / (1 - FREE)
    if annealed < 0:
        return up.new_zeros(())
    power = HARDEST + (SOFTEST - HARDEST) * (1 + math.cos(math.pi * annealed)) / 2
    return STRENGTH * (1 - (2 * up - 1).abs().pow(power)).sum()


ROUNDINGS: Mapping[str, Callable[[Any, Task], Tensor]] = {
    "nearest": _nearest,
    "adaround": _adaround,
    "gptq": _gptq,
    "gpfq": _gpfq,
}
