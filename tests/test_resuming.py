"""However a training was ended, it goes on and ends as an unbroken one, to the bit."""

import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.core import params
from stages.core.running.journal import Run
from stages.core.training import loop
from stages.core.training.loop import Lesson
from tests.lessons import BATCHES, OPTIMIZERS, Asked, change, equal, new


class Killed(BaseException):
    """What no handler of the loop may catch."""


def everything(lesson: Lesson, optimizer: params.Optimizer) -> Lesson:
    """Averaged weights, two parts a batch, both pictures and labels mixed, a schedule that looks back."""
    return change(
        lesson,
        optimizer=optimizer,
        schedule=params.Plateau(name="plateau", warm_up_epochs=0.5, factor=0.5, patience=0),
        average=0.9,
        accumulate=2,
        mix=params.Mixed(name="mixup", alpha=0.4),
    )


@pytest.mark.parametrize("steps_before_death", [1, 5, 7, 12])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_ends_as_an_unbroken_one(
    lesson: Lesson, tmp_path: Path, steps_before_death: int, optimizer: str
) -> None:
    lesson = change(lesson, optimizer=OPTIMIZERS[optimizer])
    unbroken = new()
    history = loop.fit(unbroken, lesson, Run(tmp_path / "unbroken"), "x")
    deaths = iter([False] * steps_before_death + [True])
    plain = lesson.objective

    def deadly(*arguments: Tensor) -> Tensor:
        if next(deaths):
            raise Killed
        return plain(*arguments)

    with pytest.raises(Killed):
        loop.fit(new(), replace(lesson, objective=Asked(deadly)), Run(tmp_path / "broken"), "x")
    torch.manual_seed(12345)
    resumed = new(seed=99)  # what it began with is kept, too
    assert loop.fit(resumed, lesson, Run(tmp_path / "broken"), "x") == history
    assert equal(resumed, unbroken)


@pytest.mark.parametrize("steps_before_signal", [pytest.param(1, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(name, marks=() if name in ("adamw", "muon") else pytest.mark.slow) for name in OPTIMIZERS],
)
def test_a_run_that_was_asked_to_end_keeps_the_step_it_was_in(
    lesson: Lesson, tmp_path: Path, optimizer: str, steps_before_signal: int
) -> None:
    lesson = everything(lesson, OPTIMIZERS[optimizer])
    unbroken, resumed = new(), new(seed=99)
    history = loop.fit(unbroken, lesson, Run(tmp_path / "unbroken"), "x")
    calls, plain = iter(range(1, 1000)), lesson.objective

    def asked(*arguments: Tensor) -> Tensor:
        if next(calls) == 2 * steps_before_signal:  # two parts a step
            signal.raise_signal(signal.SIGTERM)
        return plain(*arguments)

    with pytest.raises(SystemExit) as end:
        loop.fit(new(), replace(lesson, objective=Asked(asked)), Run(tmp_path / "broken"), "x")
    assert end.value.code == 128 + signal.SIGTERM
    assert next(calls) == 2 * steps_before_signal + 1  # that step was the last
    left, seen = iter(range(1, 1000)), lesson.objective

    def counted(*arguments: Tensor) -> Tensor:
        next(left)
        return seen(*arguments)

    assert loop.fit(resumed, replace(lesson, objective=Asked(counted)), Run(tmp_path / "broken"), "x") == history
    assert equal(resumed, unbroken)
    assert next(left) == 2 * (3 * BATCHES - steps_before_signal) + 1  # and nothing was done twice


def test_ctrl_c_is_what_it_is_elsewhere(lesson: Lesson, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def asked(*arguments: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return lesson.objective(*arguments)

    with pytest.raises(KeyboardInterrupt):
        loop.fit(new(), replace(lesson, objective=Asked(asked)), Run(tmp_path), "x")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_killed_run_that_mixes_augments_and_streams_leaves_no_thread_and_ends_alike(
    lesson: Lesson, tmp_path: Path
) -> None:
    augment = lesson.augment.model_copy(update={"mirror": True, "rotate": 10.0, "contrast": 0.2, "erase": 0.5})
    resident = replace(change(lesson, mix=params.Mixed(name="cutmix", alpha=1.0)), augment=augment)
    streamed = replace(resident, train=replace(lesson.train, streamed=True), val=replace(lesson.val, streamed=True))
    unbroken, resumed, calls = new(), new(), iter(range(100))
    history = loop.fit(unbroken, resident, Run(tmp_path / "unbroken"), "x")

    def deadly(*arguments: Tensor) -> Tensor:
        if next(calls) == 7:
            raise Killed
        return lesson.objective(*arguments)

    with pytest.raises(Killed) as death:
        loop.fit(new(), replace(streamed, objective=Asked(deadly)), Run(tmp_path / "broken"), "x")
    assert death.tb  # holds on to whatever the loop left open
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightvision")]
    assert loop.fit(resumed, streamed, Run(tmp_path / "broken"), "x") == history
    assert equal(resumed, unbroken)
