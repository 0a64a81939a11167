"""Channels are drawn to zero as the formula says, and those that get there can be cut for nothing."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages.core import evaluation, params
from stages.core.networks import families
from stages.core.pruning import grouping, lasso
from stages.core.pruning.grouping import Group
from stages.core.running.journal import Run
from stages.core.training import loop
from stages.core.training.loop import Lesson
from tests.lessons import change, new

pytestmark = pytest.mark.slow

SIZE = 8


def groups(network: nn.Module) -> list[Group]:
    return grouping.groups(network, SIZE, families.heads(network))


def rows(network: nn.Module, group: Group, channel: int) -> list[torch.Tensor]:
    """Views of whatever belongs to a channel, read off the group one place at a time."""
    found = []
    for part in group.slices:
        tensor = network.get_parameter(part.tensor).detach()
        for place, whose in zip(part.places, part.channels, strict=True):
            if whose == channel:
                found.append(tensor.select(part.dimension, place))
    return found


def whole(network: nn.Module, group: Group, channel: int) -> torch.Tensor:
    return torch.cat([row.flatten() for row in rows(network, group, channel)])


def norm(network: nn.Module, group: Group, channel: int) -> tuple[float, int]:
    numbers = whole(network, group, channel).double()
    return float(numbers.norm()), len(numbers)


def test_a_group_is_all_that_a_channel_goes_through() -> None:
    """By hand, of the block's inner channels: its filter, its BatchNorm, the column of who reads it."""
    network: Any = new()
    [group] = [one for one in groups(network) if one.name == "blocks.1.conv1"]
    block = network.blocks[1]
    by_hand = [block.conv1.weight[5], block.bn1.weight[5], block.bn1.bias[5], block.conv2.weight[:, 5]]
    expected = torch.cat([tensor.detach().flatten() for tensor in by_hand]).sort().values
    assert torch.equal(whole(network, group, 5).sort().values, expected)


def test_a_step_is_the_proximal_one() -> None:
    """Norms become max(0, norm - rate x strength x root of the size), and directions stay. Groups overlap, so that
    one is looked at alone."""
    network = new()
    [group] = [one for one in groups(network) if one.name == "blocks.1.conv1"]
    channels = range(max(group.slices[0].channels) + 1)
    for channel in (0, 3):
        for row in rows(network, group, channel):
            row.mul_(0.01)
    before = {channel: norm(network, group, channel) for channel in channels}
    directions = {channel: whole(network, group, channel) / before[channel][0] for channel in channels}
    lasso.Lasso(network, params.Lasso(epochs=1, strength=0.5), [group]).after(rate=0.02)
    for channel, (length, size) in before.items():
        wanted = max(0.0, length - 0.02 * 0.5 * size**0.5)
        found = norm(network, group, channel)[0]
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-7)
        if wanted:
            assert torch.allclose(whole(network, group, channel) / found, directions[channel], atol=1e-5)
    assert sum(norm(network, group, channel)[0] == 0 for channel in channels) == 2


def dead(network: nn.Module, found: Sequence[Group]) -> int:
    return sum(
        norm(network, group, channel)[0] == 0 for group in found for channel in range(max(group.slices[0].channels) + 1)
    )


def test_training_gives_channels_that_are_zero(lesson: Lesson, tmp_path: Path) -> None:
    """The stronger the more, and what is zero the network does not need."""
    counts = []
    for strength in (0.05, 10.0, 40.0):
        network = new()
        found = groups(network)
        drawing = partial(lasso.Lasso, settings=params.Lasso(epochs=3, strength=strength), groups=found)
        drawn = replace(change(lesson, epochs=3, patience=3), constraint=drawing, ends_with="last")
        loop.fit(network, drawn, Run(tmp_path), f"drawn-{strength}")
        counts.append(dead(network, found))
    assert counts[0] == 0 < counts[1] < counts[2]
    assert evaluation.logits(network, lesson.val).isfinite().all()


def test_a_training_may_end_with_its_last_epoch(lesson: Lesson, tmp_path: Path) -> None:
    """Whatever epoch was best; also when it is taken up again after the end, and with averaged weights."""
    for average in (None, 0.9):
        short = change(lesson, epochs=3, patience=3, average=average)
        run = Run(tmp_path / str(average))
        answers = {}
        for name in ("best", "last"):
            network = new()
            history = loop.fit(network, replace(short, ends_with=name), run, name)
            answers[name] = evaluation.on_val(evaluation.logits(network, lesson.val), lesson.val.labels)
            row = history[-1 if name == "last" else loop.best_epoch(history) - 1]
            assert answers[name]["val_loss"] == pytest.approx(row["val_loss"], rel=1e-5)
            again = new(seed=1)
            loop.fit(again, replace(short, ends_with=name), run, name)
            assert torch.equal(evaluation.logits(again, lesson.val), evaluation.logits(network, lesson.val))
