"""What a channel is worth, against silence, sums by hand and finite differences."""

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

from stages.core import batches, counting, machine, params
from stages.core.datasets import storage
from stages.core.networks import widths
from stages.core.pruning import cutting, goals, importances
from tests.test_pruning import NETWORKS, SIZE, alive, model, wanted

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
