"""The rate has the shape that is promised: torch's own schedulers are asked, step by step."""

import itertools
import math

import pytest
import torch
from torch.optim import lr_scheduler

from stages.core import params
from stages.core.training import schedules
from stages.core.training.schedules import Moment

PER_EPOCH, EPOCHS = 7, 9
STEPS = PER_EPOCH * EPOCHS
LOSSES = [2.0, 1.0, 1.1, 0.99995, 1.2, 0.5, 0.6, 0.7, 0.8]


def shares(settings: params.Schedule) -> list[float]:
    return [
        schedules.share(settings, Moment(step, PER_EPOCH, EPOCHS, LOSSES[: step // PER_EPOCH])) for step in range(STEPS)
    ]


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)


def rates(scheduler: lr_scheduler.LRScheduler, steps: int) -> list[float]:
    found: list[float] = []
    for _ in range(steps):
        found.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_a_warm_up_is_linear_and_half_a_cosine_follows() -> None:
    found = shares(params.Cosine(name="cosine", warm_up_epochs=2))
    assert found[:14] == pytest.approx([(step + 1) / 14 for step in range(14)])
    torchs = rates(lr_scheduler.CosineAnnealingLR(optimizer(), T_max=STEPS - 14), STEPS - 14)
    assert found[14:] == pytest.approx(torchs)


def test_one_cycle() -> None:
    found = shares(params.OneCycle(name="one_cycle", rise=0.3, first=0.04, last=4e-6))
    torchs = lr_scheduler.OneCycleLR(
        optimizer(), 1.0, total_steps=STEPS, pct_start=0.3, div_factor=25, final_div_factor=1e4, cycle_momentum=False
    )
    assert found == pytest.approx([*rates(torchs, STEPS - 1), 4e-6])


def test_exponential() -> None:
    found = shares(params.Exponential(name="exponential", warm_up_epochs=1, decay=0.8))
    by_epoch = rates(lr_scheduler.ExponentialLR(optimizer(), 0.8), EPOCHS - 1)
    assert found[PER_EPOCH:] == pytest.approx([rate for rate in by_epoch for _ in range(PER_EPOCH)])


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_plateau(patience: int) -> None:
    found = shares(params.Plateau(name="plateau", warm_up_epochs=0, factor=0.1, patience=patience))
    moved = optimizer()
    torchs = lr_scheduler.ReduceLROnPlateau(moved, factor=0.1, patience=patience)
    expected: list[float] = []
    for loss in LOSSES:
        expected += [moved.param_groups[0]["lr"]] * PER_EPOCH
        torchs.step(loss)
    assert found == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_a_constant_rate_is_constant() -> None:
    assert set(shares(params.Constant(name="constant", warm_up_epochs=0))) == {1.0}


@pytest.mark.parametrize(
    "settings",
    [
        params.Cosine(name="cosine", warm_up_epochs=0.3),
        params.OneCycle(name="one_cycle", rise=0.5, first=0.1, last=0.1),
    ],
)
def test_no_rate_is_above_the_full_one_or_below_nothing(settings: params.Schedule) -> None:
    for epochs, steps in itertools.product((1, 2, 5), (1, 2, 3)):
        for step in range(epochs * steps):
            if epochs * steps > 2:
                share = schedules.share(settings, Moment(step, steps, epochs, []))
                assert 0 <= share <= 1
                assert math.isfinite(share)
