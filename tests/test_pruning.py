"""Channels are really gone, the ones that matter stay, and what is left computes what it should."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages.core import batches, counting, evaluation, machine, params, recalibration
from stages.core.datasets import storage
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families, widths
from stages.core.networks.artifact import Card, Model
from stages.core.pruning import cutting, goals
from stages.core.running.errors import Refusal
from stages.core.shipping import writing
from tests import lessons

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


def shrunk(dense: nn.Module, wanted: params.Prune, seed: int = 0) -> nn.Module:
    return lessons.shrunk(model(dense), wanted, seed)


def model(dense: nn.Module) -> Model:
    return Model(dense, Card(NETWORKS[0], FACTS))


def wanted(settings: params.Params, **changes: object) -> params.Prune:
    return settings.prune.model_copy(update=changes)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("ranking", ["global", pytest.param("layerwise", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "sparsity", [pytest.param(0.3, marks=pytest.mark.slow), pytest.param(0.5, marks=pytest.mark.slow), 0.75]
)
def test_the_wanted_share_of_parameters_goes(
    settings: params.Params, network: params.Network, ranking: str, sparsity: float
) -> None:
    dense = alive(network)
    narrow = shrunk(dense, wanted(settings, sparsity=sparsity, ranking=ranking, round_to=2))
    removed = 1 - counting.parameters(narrow) / counting.parameters(dense)
    assert removed == pytest.approx(sparsity, abs=0.02)
    assert counting.multiply_accumulates(narrow, 16) < counting.multiply_accumulates(dense, 16)
    assert narrow(torch.randn(3, 3, 16, 16)).shape == (3, 4)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_a_pruned_network_is_rebuilt_from_its_widths(
    settings: params.Params, network: params.Network, tmp_path: Path
) -> None:
    narrow = shrunk(alive(network), wanted(settings, sparsity=0.5)).eval()
    artifact.save_float(tmp_path / "model", narrow, network, FACTS)
    model = artifact.load(tmp_path / "model")
    picture = torch.randn(2, 3, 16, 16)
    assert model.card.widths
    assert torch.equal(model.network(picture), narrow(picture))


def test_rounding_is_kept(settings: params.Params) -> None:
    narrow = shrunk(alive(NETWORKS[0]), wanted(settings, sparsity=0.6, round_to=8))
    assert all(count % 8 == 0 for name, count in widths.outputs(narrow).items() if name not in families.heads(narrow))


def test_nothing_is_removed_at_zero(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    assert widths.read(shrunk(dense, wanted(settings, sparsity=0.0))) == widths.read(dense)


def test_what_cannot_be_reached_is_refused(settings: params.Params) -> None:
    with pytest.raises(Refusal, match=r"^99\.9% of this network's parameters cannot be pruned, \d+\.\d% comes near"):
        shrunk(alive(NETWORKS[0]), wanted(settings, sparsity=0.999, round_to=4))


def test_what_is_left_is_counted_by_hand(settings: params.Params) -> None:
    """Half the channels of both convolutions, and with them half of what reads them."""
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
    layers = [first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.BatchNorm2d(16), nn.ReLU()]
    dense = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    given = wanted(settings, sparsity=0.5, ranking="layerwise", round_to=1)
    narrow = cutting.cut(dense, 0.5, cutting.plan(model(dense), dense, given, 0), {})
    by_hand = (3 * 4 * 9 + 4) + 2 * 4 + (4 * 8 * 9 + 8) + 2 * 8 + (8 * 4 + 4)
    assert counting.parameters(narrow) == by_hand == 468
    assert counting.multiply_accumulates(narrow, SIZE) == SIZE**2 * (3 * 4 * 9 + 4 * 8 * 9) + 8 * 4


def test_a_cut_between_others_takes_what_comes_nearest(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    given = wanted(settings, sparsity=0.999, round_to=4)
    plan = cutting.plan(model(dense), dense, given, 0)
    assert plan.goal(cutting.shrink(dense, 0.999, plan, {}, must_reach=False)) > 0.9


def test_the_network_it_came_from_is_left_alone(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    before = copy.deepcopy(dense.state_dict())
    shrunk(dense, wanted(settings, sparsity=0.5))
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())


@pytest.mark.slow
def test_rankings_differ(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    found = {
        tuple(widths.outputs(shrunk(dense, wanted(settings, sparsity=0.5, ranking=ranking, round_to=1))).values())
        for ranking in ("global", "layerwise", "isomorphic")
    }
    assert len(found) == 3


@pytest.mark.parametrize("of", ["macs", pytest.param("bytes", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_other_things_than_parameters_shrink_as_asked(settings: params.Params, tmp_path: Path, of: str) -> None:
    dense = alive(NETWORKS[0])
    narrow = shrunk(dense, wanted(settings, sparsity=0.4, of=of, round_to=2))
    if of == "macs":
        sizes = [counting.multiply_accumulates(network, SIZE) for network in (narrow, dense)]
    else:
        sizes = []
        for number, network in enumerate((narrow, dense)):
            writing.write(model(network), tmp_path / f"{number}.onnx", 18, {})
            sizes.append((tmp_path / f"{number}.onnx").stat().st_size)
    assert 1 - sizes[0] / sizes[1] == pytest.approx(0.4, abs=0.02)


@pytest.mark.slow
def test_latency_is_measured_beside_the_network_it_came_from(settings: params.Params) -> None:
    """A network against itself, and against one with a tenth of its products."""
    dense = families.build(params.ResNet(name="resnet18", stem="small", width=0.5), 4, SIZE).eval()
    narrow = shrunk(dense, wanted(settings, sparsity=0.9, of="macs", round_to=2))
    removed = goals.milliseconds(model(dense))
    assert abs(removed(dense)) < 0.35
    assert removed(narrow) > 0.35


@pytest.mark.slow
def test_protected_layers_keep_their_channels(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    before = widths.outputs(dense)
    free = widths.outputs(shrunk(dense, wanted(settings, sparsity=0.6)))
    held = widths.outputs(shrunk(dense, wanted(settings, sparsity=0.6, protect=("blocks.5.conv1",))))
    assert free["blocks.5.conv1"] < before["blocks.5.conv1"] == held["blocks.5.conv1"]
    with pytest.raises(Refusal, match=r"the network has no layer 'blocks\.9'; near it: blocks"):
        shrunk(dense, wanted(settings, sparsity=0.0, protect=("blocks.9",)))


@pytest.mark.slow
def test_random_is_random_and_seeded(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    random = wanted(settings, importance=params.Random(name="random"), sparsity=0.5)
    first, again, other = (shrunk(dense, random, seed).state_dict() for seed in (0, 0, 1))
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


@pytest.mark.parametrize("protected", ["blocks.0", "blocks.0.attn", "blocks.0.attn.qkv"])
def test_protected_attention_keeps_its_heads(settings: params.Params, protected: str) -> None:
    options: dict[str, bool | int | float | str] = {"depth": 2, "embed_dim": 24, "num_heads": 3, "patch_size": 8}
    vit = params.Timm(name="timm", model="vit_tiny_patch16_224", options=options)
    dense = families.build(vit, 4, SIZE).eval()
    plan = cutting.plan(model(dense), dense, wanted(settings, protect=(protected,)), 0)
    assert plan.attentions == ["blocks.1.attn"]
