"""The rate as training goes on. Contract: settings and a moment give a share of the full rate.

A schedule is a function of the moment and keeps no state, so that a resumed training has nothing to restore.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core import params

NOTICEABLY = 1e-4  # share by which a loss must fall to count as lower


@dataclass(frozen=True)
class Moment:
    step: int
    steps_per_epoch: int
    epochs: int
    val_losses: Sequence[float]  # of the epochs before

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs


def constant(_settings: params.Constant, _moment: Moment, _warm_up: int) -> float:
    return 1.0


def cosine(_settings: params.Cosine, moment: Moment, warm_up: int) -> float:
    """Loshchilov and Hutter 2016, one period."""
    return 0.5 * (1 + math.cos(math.pi * (moment.step - warm_up) / max(1, moment.steps - warm_up)))


def exponential(settings: params.Exponential, moment: Moment, warm_up: int) -> float:
    return settings.decay ** ((moment.step - warm_up) // moment.steps_per_epoch)


def plateau(settings: params.Plateau, moment: Moment, _warm_up: int) -> float:
    best, waited, share = math.inf, 0, 1.0
    for loss in moment.val_losses:
        best, waited = (loss, 0) if loss < best * (1 - NOTICEABLY) else (best, waited + 1)
        if waited > settings.patience:
            waited, share = 0, share * settings.factor
    return share


def one_cycle(settings: params.OneCycle, moment: Moment, _warm_up: int) -> float:
    """Smith and Topin 2017."""
    top = settings.rise * moment.steps - 1
    if moment.step <= top:
        return _between(settings.first, 1.0, moment.step / top)
    return _between(1.0, settings.last, (moment.step - top) / (moment.steps - 1 - top))


SCHEDULES: Mapping[str, Callable[[Any, Moment, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "exponential": exponential,
    "plateau": plateau,
    "one_cycle": one_cycle,
}


def share(settings: params.Schedule, moment: Moment) -> float:
    """Of the full rate; the warm-up is linear."""
    warm_up = round(getattr(settings, "warm_up_epochs", 0) * moment.steps_per_epoch)
    if moment.step < warm_up:
        return (moment.step + 1) / warm_up
    return SCHEDULES[settings.name](settings, moment, warm_up)


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
