"""Channels are really gone, the ones that matter stay, and what is left computes what it should."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages.core import batches, counting, evaluation, machine, params, pruning, recalibration
from stages.core.datasets import storage
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families, widths
from stages.core.running.errors import Refusal

SIZE = 16
FACTS = Facts("small", tuple("abcd"), SIZE, (0.5,) * 3, (0.2,) * 3, "crop")
NETWORKS: list[params.Network] = [
    params.ResidualCNN(name="residual_cnn", blocks=6, hidden_layers=1),
    params.ResNet(name="resnet18", stem="small", width=0.25),
    params.ResNet(name="resnet18", stem="imagenet", width=0.25),
]


def alive(settings: params.Network) -> nn.Module:
    """As after training: no scale of a BatchNorm is zero, all are different."""
    torch.manual_seed(0)
    network = families.build(settings, 4, SIZE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # pyright: ignore[reportArgumentType]
    return network.eval()


def wanted(settings: params.Params, **changes: object) -> params.Prune:
    return settings.prune.model_copy(update=changes)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("ranking", ["global", "layerwise"])
@pytest.mark.parametrize("sparsity", [pytest.param(0.3, marks=pytest.mark.slow), 0.5, 0.75])
def test_the_wanted_share_of_parameters_goes(
    settings: params.Params, network: params.Network, ranking: str, sparsity: float
) -> None:
    dense = alive(network)
    narrow = pruning.shrink(dense, wanted(settings, sparsity=sparsity, ranking=ranking, round_to=2), 16, 0)
    removed = 1 - counting.parameters(narrow) / counting.parameters(dense)
    assert removed == pytest.approx(sparsity, abs=0.02)
    assert counting.multiply_accumulates(narrow, 16) < counting.multiply_accumulates(dense, 16)
    assert narrow(torch.randn(3, 3, 16, 16)).shape == (3, 4)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_a_pruned_network_is_rebuilt_from_its_widths(
    settings: params.Params, network: params.Network, tmp_path: Path
) -> None:
    narrow = pruning.shrink(alive(network), wanted(settings, sparsity=0.5), 16, 0).eval()
    artifact.save_float(tmp_path / "model", narrow, network, FACTS)
    model = artifact.load(tmp_path / "model")
    picture = torch.randn(2, 3, 16, 16)
    assert model.card.widths
    assert torch.equal(model.network(picture), narrow(picture))


def test_rounding_is_kept(settings: params.Params) -> None:
    narrow = pruning.shrink(alive(NETWORKS[0]), wanted(settings, sparsity=0.6, round_to=8), 16, 0)
    assert all(count % 8 == 0 for name, count in widths.outputs(narrow).items() if name not in families.heads(narrow))


def test_nothing_is_removed_at_zero(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    assert widths.read(pruning.shrink(dense, wanted(settings, sparsity=0.0), 16, 0)) == widths.read(dense)


def test_what_cannot_be_reached_is_refused(settings: params.Params) -> None:
    with pytest.raises(Refusal, match=r"^of this network's parameters \d+\.\d% can be pruned, not 99\.9%: 1 layers"):
        pruning.shrink(alive(NETWORKS[0]), wanted(settings, sparsity=0.999, round_to=4), 16, 0)


def test_the_network_it_came_from_is_left_alone(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    before = copy.deepcopy(dense.state_dict())
    pruning.shrink(dense, wanted(settings, sparsity=0.5), 16, 0)
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_the_least_important_channels_go_first_and_silence_equals_removal(settings: params.Params, name: str) -> None:
    """Channels that are silent (no weight in or out) go, and the answers do not change."""
    dense = alive(NETWORKS[0])
    silent = [1, 4, 6, 11]
    block: Any = dense.get_submodule("blocks.1")
    for channel in silent:
        for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias, block.conv2.weight.transpose(0, 1)):
            tensor.data[channel] = 0
    kind = params.Magnitude(name=name)  # pyright: ignore[reportArgumentType]
    narrow = pruning.cut(
        dense, 0.005, wanted(settings, importance=kind, ranking="global", round_to=None), 16, 0, ["head.2"]
    )
    removed = widths.outputs(dense)["blocks.1.conv1"] - widths.outputs(narrow)["blocks.1.conv1"]
    assert 0 < removed <= len(silent)
    picture = torch.randn(2, 3, 16, 16)
    assert torch.allclose(narrow.eval()(picture), dense(picture), atol=1e-5)


def test_random_is_random_and_seeded(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    random = wanted(settings, importance=params.Random(name="random"), sparsity=0.5)
    first, again, other = (pruning.shrink(dense, random, 16, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(first[name].shape != other[name].shape or not torch.equal(first[name], other[name]) for name in first)


def test_statistics_of_batch_norm_are_those_of_the_pictures(settings: params.Params, prepared: Path) -> None:
    """Against a dense reference: mean and variance of the first convolution's output over the whole split."""
    network: Any = alive(NETWORKS[0])
    pictures = batches.on_device(storage.load(prepared / "train"), machine.choose(settings.compute, 0))
    recalibration.batch_norm(network, pictures)
    torch.use_deterministic_algorithms(mode=False)
    with torch.no_grad():
        output = network.conv1(torch.cat([images for images, _ in batches.in_order(pictures)]))
    norm = network.bn1
    assert torch.allclose(norm.running_mean, output.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, output.var((0, 2, 3)), rtol=1e-3)
    assert norm.momentum == 0.1
    assert evaluation.logits(network, pictures).isfinite().all()
