"""Whole blocks go: those that the loss misses least, and only where the rest still fits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages.core import counting, params
from stages.core.networks import artifact, families
from stages.core.pruning import blocks, cutting
from stages.core.running.errors import Refusal
from tests.test_pruning import FACTS, NETWORKS, SIZE, alive, model, wanted


@pytest.mark.slow
def test_blocks_that_do_nothing_go_first_and_nothing_changes(tmp_path: Path) -> None:
    """A residual branch that is silent adds nothing; without its block the answers are the same, also from the disk."""
    settings = params.ResNet(name="resnet34", stem="small", width=0.125)
    dense = alive(settings)
    for name in ("layer1.1", "layer3.4"):
        block: Any = dense.get_submodule(name)
        nn.init.zeros_(block.bn2.weight)
        nn.init.zeros_(block.bn2.bias)
    pictures, labels = torch.rand(6, 3, SIZE, SIZE), torch.arange(6) % 4
    before = dense(pictures)

    def loss(network: nn.Module) -> float:
        return (
            nn.functional.cross_entropy(network(pictures), labels).item()
            + (network(pictures) - before).abs().sum().item()
        )

    shallow, gone = blocks.without(dense, 2, SIZE, (), loss)
    assert sorted(gone) == ["layer1.1", "layer3.4"]
    assert torch.equal(shallow(pictures), before)
    assert counting.parameters(shallow) < counting.parameters(dense)
    artifact.save_float(tmp_path / "model", shallow, settings, FACTS)
    again = artifact.load(tmp_path / "model")
    assert torch.equal(again.network(pictures), before)
    assert again.card.widths == {name: {"left_out": ()} for name in gone}


def test_blocks_that_change_the_shape_stay() -> None:
    resnet = families.build(params.ResNet(name="resnet18", stem="small", width=0.125), 4, SIZE)
    assert blocks.removable(resnet, SIZE) == ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    vit = params.Timm(name="timm", model="vit_tiny_patch16_224", options={"patch_size": 4, "depth": 3})
    assert blocks.removable(families.build(vit, 4, SIZE), SIZE) == ["blocks.0", "blocks.1", "blocks.2"]
    with pytest.raises(Refusal, match=r"of this network 5 blocks can go, not 6: lower prune\.blocks"):
        blocks.without(resnet, 6, SIZE, (), lambda network: 0.0)


@pytest.mark.slow
def test_what_whole_blocks_took_counts(settings: params.Params) -> None:
    dense = alive(NETWORKS[1])
    shallow = blocks.left_out(dense, "layer4.1")
    took = 1 - counting.parameters(shallow) / counting.parameters(dense)
    for sparsity, left in ((0.7, 0.7), (took / 2, took)):
        plan = cutting.plan(model(dense), shallow, wanted(settings, sparsity=sparsity, round_to=1), 0)
        narrow = cutting.shrink(shallow, sparsity, plan, {})
        assert 1 - counting.parameters(narrow) / counting.parameters(dense) == pytest.approx(left, abs=0.02)
