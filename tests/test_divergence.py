"""A loss that is no number: found at once, named, and answered as the settings want."""

import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import loop, watching
from stages.core.training.loop import Lesson
from stages.core.training.watching import NotFinite, Watch
from tests.lessons import Asked, change, new

RETRY = params.Retry(name="retry", times=2, factor=0.5)


def spoiled(lesson: Lesson, *calls: int) -> Asked:
    """An objective that is infinite the so-manieth time it is asked."""
    count = iter(range(1000))
    return Asked(lambda step: lesson.objective(step) * (math.inf if next(count) in calls else 1))


def test_it_ends_the_stage_at_its_batch(lesson: Lesson, tmp_path: Path) -> None:
    with pytest.raises(
        Refusal,
        match=r"not finite from batch 2 of epoch 2 \(rate .*every layer answers finite.*training\.optimizer\.rate",
    ):
        loop.fit(new(), replace(lesson, objective=spoiled(lesson, 6)), Run(tmp_path), "x")


def test_a_retry_goes_on_from_the_last_epoch_with_half_the_rate(
    lesson: Lesson, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steady = change(lesson, on_nan=RETRY, schedule=params.Constant(name="constant", warm_up_epochs=0))
    history = loop.fit(new(), replace(steady, objective=spoiled(lesson, 6)), Run(tmp_path), "x")
    full = lesson.settings.optimizer.rate
    assert [row["rate"] for row in history] == [full, full / 2, full / 2]
    assert "back to epoch 1 and on with a lower rate" in capsys.readouterr().out


def test_a_retry_is_what_a_run_that_began_so_would_have_been(lesson: Lesson, tmp_path: Path) -> None:
    """Nothing of the spoilt steps is left: from the first epoch on it equals a training at half the rate."""
    steady = change(lesson, on_nan=RETRY)
    halved = lesson.settings.optimizer.model_copy(update={"rate": lesson.settings.optimizer.rate / 2})
    networks = new(), new()
    loop.fit(networks[0], replace(steady, objective=spoiled(lesson, 3)), Run(tmp_path / "spoilt"), "x")
    loop.fit(networks[1], change(lesson, optimizer=halved), Run(tmp_path / "halved"), "x")
    for one, other in zip(networks[0].state_dict().values(), networks[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_retries_end(lesson: Lesson, tmp_path: Path) -> None:
    for_ever = replace(change(lesson, on_nan=RETRY), objective=spoiled(lesson, *range(6, 1000)))
    with pytest.raises(Refusal, match="after 2 times on_nan: retry"):
        loop.fit(new(), for_ever, Run(tmp_path), "x")


def test_a_kill_does_not_give_retries_back(lesson: Lesson, tmp_path: Path) -> None:
    """What was lowered stays lowered: the resumed run equals the one that was not killed."""
    steady = change(lesson, on_nan=RETRY)
    whole = new()
    history = loop.fit(whole, replace(steady, objective=spoiled(lesson, 6)), Run(tmp_path / "whole"), "x")
    count, infinite = iter(range(1000)), spoiled(lesson, 6)

    def deadly(*arguments: Tensor) -> Tensor:
        if next(count) == 9:
            raise KeyboardInterrupt
        return infinite(*arguments)

    with pytest.raises(KeyboardInterrupt):
        loop.fit(new(), replace(steady, objective=Asked(deadly)), Run(tmp_path / "killed"), "x")
    resumed = new()
    assert loop.fit(resumed, steady, Run(tmp_path / "killed"), "x") == history
    for one, other in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_last_step_that_spoils_the_weights_is_not_kept(lesson: Lesson, tmp_path: Path) -> None:
    """Its loss was finite, and what it left behind is found out by val."""
    network, count = new(), iter(range(1000))

    def spoil(weight: Tensor) -> Tensor:
        return weight * (math.nan if next(count) == 4 else 1)

    network.get_parameter("conv1.weight").register_hook(spoil)
    with pytest.raises(Refusal, match=r"batch 5 of epoch 1 .*first in the weights conv1\.weight"):
        loop.fit(network, change(lesson, clip_gradient=None), Run(tmp_path), "x")


def test_a_retry_after_an_interrupted_epoch_goes_on_from_where_that_was_kept(lesson: Lesson, tmp_path: Path) -> None:
    """Batch 3 was kept by a signal; batch 5 is infinite: the epoch ends after 5 batches all the same."""
    steady, calls = change(lesson, on_nan=RETRY, epochs=1), iter(range(1, 1000))

    def asked(*arguments: Tensor) -> Tensor:
        if next(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return lesson.objective(*arguments)

    with pytest.raises(SystemExit):
        loop.fit(new(), replace(steady, objective=Asked(asked)), Run(tmp_path), "x")
    left, infinite = list[int](), spoiled(lesson, 1)

    def counted(*arguments: Tensor) -> Tensor:
        left.append(1)
        return infinite(*arguments)

    loop.fit(new(), replace(steady, objective=Asked(counted)), Run(tmp_path), "x")
    assert len(left) == 2 + 2  # batches 4 and 5, the latter infinite, and both again


@pytest.mark.parametrize("layer", ["conv1", "blocks.1.conv2", "head.0"])
def test_the_first_layer_that_overflows_is_named(lesson: Lesson, tmp_path: Path, layer: str) -> None:
    network = new()

    def overflow(_module: nn.Module, _inputs: object, answer: Tensor) -> Tensor:
        return answer * math.inf

    network.get_submodule(layer).register_forward_hook(overflow)
    with pytest.raises(Refusal, match=f"batch 1 of epoch 1 .*first in what the layer {layer} answers"):
        loop.fit(network, lesson, Run(tmp_path), "x")


def test_spoilt_weights_and_pictures_are_told_apart(lesson: Lesson) -> None:
    network, images = new(), torch.randn(2, 3, 8, 8)
    assert watching.culprit(network, images / 0) == "the pictures themselves are not finite"
    with torch.no_grad():
        network.get_parameter("blocks.0.bn1.bias")[1] = math.nan
    assert watching.culprit(network, images) == "first in the weights blocks.0.bn1.bias"


class LateEvent:
    """A device that is `behind` steps behind."""

    behind = 0
    now = 0

    def record(self) -> None:
        LateEvent.now += 1
        self.at = LateEvent.now

    def query(self) -> bool:
        return LateEvent.now - self.at >= LateEvent.behind

    def synchronize(self) -> None:
        LateEvent.now = max(LateEvent.now, self.at)


@pytest.mark.parametrize(("behind", "noticed"), [(0, 5), (1, 6), (2, 7), (9, 7)])
def test_a_device_that_is_behind_is_waited_for_two_steps_late_at_most(behind: int, noticed: int) -> None:
    """The rule alone, with events of our own: there need be no GPU to see it."""
    LateEvent.behind, LateEvent.now = behind, 0
    watch = Watch()

    def train() -> None:
        for step in range(20):
            event = LateEvent()
            event.record()
            watch.note(step, torch.tensor(math.nan if step == 5 else 1.0), torch.zeros(1), event)

    with pytest.raises(NotFinite, match="step 5"):
        train()
    assert LateEvent.now - 1 == noticed
