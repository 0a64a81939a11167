"""Channels are really gone, the ones that matter stay, and what is left computes what it should."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_pruning
from torch import nn
from torch_pruning.pruner.importance import GroupTaylorImportance

from stages.core import batches, counting, evaluation, machine, params, recalibration
from stages.core.datasets import storage
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact, families, widths
from stages.core.networks.artifact import Card, Model
from stages.core.pruning import blocks, cutting, goals, importances
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


SCORED: dict[str, params.Importance] = {
    "l1": params.Magnitude(name="l1"),
    "l2": params.Magnitude(name="l2"),
    "group_norm": params.GroupNorm(name="group_norm"),
    "bn_scale": params.BatchNormScale(name="bn_scale"),
    "lamp": params.LAMP(name="lamp"),
    "fpgm": params.GeometricMedian(name="fpgm"),
    "taylor": params.Taylor(name="taylor", pictures=24),
    "hessian": params.Hessian(name="hessian", pictures=24),
    "random": params.Random(name="random"),
}


@pytest.fixture
def seen(settings: params.Params, prepared: Path) -> batches.Pictures:
    """Pictures of the classes that the networks here know."""
    found = batches.on_device(storage.load(prepared / "train"), machine.choose(settings.compute, 0))
    torch.use_deterministic_algorithms(mode=False)
    large = nn.functional.interpolate(found.images.permute(0, 3, 1, 2).float(), SIZE).permute(0, 2, 3, 1)
    return replace(found, images=large.to(torch.uint8))


@pytest.mark.parametrize("name", [name for name in SCORED if name not in ("fpgm", "random")])
def test_the_least_important_channels_go_first_and_silence_equals_removal(
    settings: params.Params, seen: batches.Pictures, name: str
) -> None:
    """Channels that are silent (no weight in or out) go, and the answers do not change."""
    dense = alive(NETWORKS[0])
    silent = [1, 4, 6, 11]
    block: Any = dense.get_submodule("blocks.1")
    for channel in silent:
        for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias, block.conv2.weight.transpose(0, 1)):
            tensor.data[channel] = 0
    given = wanted(settings, importance=SCORED[name], ranking="global", round_to=None)
    plan = cutting.Plan(given, goals.parameters(model(dense)), linear(dense), [], SIZE, 0)
    found = importances.gradients(dense, given.importance, seen)
    assert bool(found) == (name in ("taylor", "hessian"))
    narrow = cutting.cut(dense, 0.005, plan, found)
    removed = widths.outputs(dense)["blocks.1.conv1"] - widths.outputs(narrow)["blocks.1.conv1"]
    assert 0 < removed <= len(silent)
    shown = seen.normalise(seen.images[:24].permute(0, 3, 1, 2))  # on others, what was dead here may matter
    assert torch.allclose(narrow.eval()(shown), dense(shown), atol=1e-5)
    assert all(weight.grad is None for weight in narrow.parameters())


def linear(network: nn.Module) -> list[str]:
    """Layers that keep their channels here: those behind a ReLU that is dead on all pictures cost no loss."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]


def test_filters_in_the_middle_of_the_others_go_first(settings: params.Params) -> None:
    """He et al. 2019: not the small ones, but those that the others can stand in for."""
    dense = alive(NETWORKS[0])
    conv: Any = dense.get_submodule("blocks.1.conv1")
    count = len(conv.weight)
    order = torch.randperm(count)
    conv.weight.data[:] = (order + 1.0).view(-1, 1, 1, 1)  # all alike but for their height
    given = wanted(settings, importance=SCORED["fpgm"], ranking="layerwise", round_to=None)
    plan = cutting.Plan(given, goals.parameters(model(dense)), linear(dense), [], SIZE, 0)
    left: Any = cutting.cut(dense, 4 / count, plan, {}).get_submodule("blocks.1.conv1")
    heights = set(left.weight.mean(dim=(1, 2, 3)).round().int().tolist())
    gone = set(range(1, count + 1)) - heights
    assert gone == set(range(count // 2 - 1, count // 2 + 3))


def test_taylor_is_what_finite_differences_say(settings: params.Params, seen: batches.Pictures) -> None:
    """The loss's change as a filter fades, in float64, by so little that no ReLU passes its kink: one is 1e-7 away."""
    dense = alive(NETWORKS[0]).double()
    given = replace(seen, mean=seen.mean.double(), std=seen.std.double())
    found = importances.gradients(dense, SCORED["taylor"], as_double(given))
    images, labels = as_double(given).normalise(seen.images[:24].permute(0, 3, 1, 2)).double(), seen.labels[:24]
    weight: Any = dense.get_submodule("blocks.1.conv1").weight
    by_hand = []
    with torch.no_grad():
        for channel in range(6):
            losses = []
            for scale in (1 + 1e-8, 1 - 1e-8):
                kept = weight[channel].clone()
                weight[channel] *= scale
                losses.append(nn.functional.cross_entropy(dense(images), labels).item())
                weight[channel] = kept
            by_hand.append((losses[0] - losses[1]) / 2e-8)
    told = (found["blocks.1.conv1.weight"] * weight.detach()).flatten(1).sum(1)[:6]
    torch.testing.assert_close(told, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-4, atol=1e-7)
    with graph_of(dense.float(), found) as group:
        scored = GroupTaylorImportance(multivariable=True, group_reduction="first", normalizer="sum")(group)
    assert scored is not None
    all_told = (found["blocks.1.conv1.weight"] * weight.detach().double()).flatten(1).sum(1).abs()
    torch.testing.assert_close(scored.double(), all_told / all_told.sum(), rtol=1e-3, atol=1e-6)


def as_double(pictures: batches.Pictures) -> Any:
    class Double(batches.Pictures):
        def normalise(self, images: torch.Tensor) -> torch.Tensor:
            return super().normalise(images).double()

    return Double(**vars(pictures))


@contextmanager
def graph_of(network: nn.Module, found: importances.Gradients) -> Iterator[Any]:
    """The group of channels that blocks.1.conv1 makes."""
    importances.lay(network, {name: gradient.float() for name, gradient in found.items()})
    graph = torch_pruning.DependencyGraph().build_dependency(network, torch.zeros(1, 3, SIZE, SIZE))
    conv: Any = network.get_submodule("blocks.1.conv1")
    yield graph.get_pruning_group(conv, torch_pruning.prune_conv_out_channels, list(range(len(conv.weight))))


def test_squared_gradients_are_those_of_each_picture(seen: batches.Pictures) -> None:
    dense = alive(NETWORKS[0])
    found = importances.gradients(dense, params.Hessian(name="hessian", pictures=5), seen)
    images, labels = seen.normalise(seen.images[:5].permute(0, 3, 1, 2)), seen.labels[:5]
    weights = {name: value.detach() for name, value in dense.named_parameters()}
    buffers = dict(dense.named_buffers())

    def loss(given: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        answer = torch.func.functional_call(dense, (given, buffers), (image[None],))
        return nn.functional.cross_entropy(answer, label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, images, labels)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, each[name].square().mean(0), rtol=1e-3, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORED)
def test_every_importance_reaches_the_share(settings: params.Params, seen: batches.Pictures, name: str) -> None:
    dense = alive(NETWORKS[0])
    given = wanted(settings, importance=SCORED[name], sparsity=0.5, round_to=2)
    plan = cutting.plan(model(dense), dense, given, 0)
    narrow = cutting.shrink(dense, 0.5, plan, importances.gradients(dense, given.importance, seen))
    assert 1 - counting.parameters(narrow) / counting.parameters(dense) == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_rankings_differ(settings: params.Params) -> None:
    dense = alive(NETWORKS[0])
    found = {
        tuple(widths.outputs(shrunk(dense, wanted(settings, sparsity=0.5, ranking=ranking, round_to=1))).values())
        for ranking in ("global", "layerwise", "isomorphic")
    }
    assert len(found) == 3


@pytest.mark.parametrize("of", ["macs", pytest.param("bytes", marks=pytest.mark.slow)])
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


def test_what_whole_blocks_took_counts(settings: params.Params) -> None:
    dense = alive(NETWORKS[1])
    shallow = blocks.left_out(dense, "layer4.1")
    took = 1 - counting.parameters(shallow) / counting.parameters(dense)
    for sparsity, left in ((0.7, 0.7), (took / 2, took)):
        plan = cutting.plan(model(dense), shallow, wanted(settings, sparsity=sparsity, round_to=1), 0)
        narrow = cutting.shrink(shallow, sparsity, plan, {})
        assert 1 - counting.parameters(narrow) / counting.parameters(dense) == pytest.approx(left, abs=0.02)
