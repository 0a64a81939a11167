"""A BatchNorm behind an integer layer: it begins where floating point was, settles, stays upright, and folds away."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.core.quantized import inserting, integers
from stages.core.quantizing import calibration, normalising
from stages.core.quantizing.normalising import Normalised, Upright
from stages.core.running.journal import Run
from stages.core.training import loop
from stages.core.training.loop import Lesson
from tests.integer_networks import wanted
from tests.lessons import Asked, new

pytestmark = pytest.mark.slow

LAYERS: dict[str, nn.Module] = {
    "conv2d": nn.Conv2d(4, 6, 3, padding=1),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "conv1d": nn.Conv1d(4, 6, 3),
    "linear": nn.Linear(4, 6),
}
SHAPES = {"conv2d": (8, 4, 5, 5), "grouped": (8, 4, 5, 5), "conv1d": (8, 4, 9), "linear": (8, 4)}


class OneLayer(nn.Module):
    """Layer by layer, since the graph would not know a Conv1d."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.shape, self.act = layer, shape, nn.SiLU()

    def forward(self, given: Tensor) -> Tensor:
        wide = given.flatten(1).repeat(1, 100)[:, : torch.Size(self.shape[1:]).numel()]
        return self.act(self.layer(wide.view(-1, *self.shape[1:])))


def calibrated(kind: str, **changes: object) -> calibration.Integers:
    torch.manual_seed(0)
    LAYERS[kind].reset_parameters()  # pyright: ignore[reportCallIssue]
    network = OneLayer(LAYERS[kind], SHAPES[kind])
    return calibration.calibrate(network, wanted(weights=3, ends=3, **changes), [seen()], seed=0)


def seen() -> Tensor:
    return torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", LAYERS)
@torch.no_grad()
def test_it_has_the_moments_of_floating_point_and_folds_away(kind: str) -> None:
    made = calibrated(kind)
    codes = integers.all_codes(made.network)["layer"]
    made.network.eval()
    normalising.normalise(made.network, made.merged, ["layer"], [seen()])
    inside = made.network.get_submodule("layer")
    assert isinstance(inside, Normalised)
    answers: dict[str, Tensor] = {}
    with calibration.exact(made.network):  # with nothing rounded it answers as the layer did
        hook = inside.norm.register_forward_hook(_notes(answers, "own"))
        torch.testing.assert_close(made.network(seen()), made.merged(seen()), rtol=1e-3, atol=1e-3)
        hook.remove()
    hook = made.merged.get_submodule("layer").register_forward_hook(_notes(answers, "dense"))
    made.merged(seen())
    hook.remove()
    torch.testing.assert_close(answers["own"], answers["dense"], rtol=1e-3, atol=1e-3)

    made.network.train()
    normalising.settle_after(made.network, 1)
    made.network(seen())  # what it knows moves on
    nn.init.uniform_(inside.norm.weight, 0.5, 1.5)
    nn.init.uniform_(inside.norm.bias, -1, 1)
    made.network.eval()
    with calibration.exact(made.network, weights=False):
        before = made.network(seen())
    normalising.fold(made.network)
    assert not isinstance(made.network.get_submodule("layer"), Normalised)
    with calibration.exact(made.network, weights=False):
        torch.testing.assert_close(made.network(seen()), before, rtol=1e-4, atol=1e-4)
    assert torch.equal(integers.all_codes(made.network)["layer"], codes)


def _notes(answers: dict[str, Tensor], name: str) -> Callable[..., None]:
    return lambda _layer, _given, result: answers.update({name: result})


def normalised() -> nn.Module:
    """Of the small network, each convolution that has a BatchNorm behind it."""
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    made = calibration.calibrate(new().eval(), wanted(weights=4), [images], seed=0)
    names = [name for name, layer in made.merged.named_modules() if isinstance(layer, nn.Conv2d)]
    normalising.normalise(made.network, made.merged, names, [images])
    return made.network


def norms(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, Normalised)]


def test_it_stands_still_after_so_many_steps() -> None:
    network = normalised().train()
    normalising.settle_after(network, 3)
    images, seen_means = torch.randn(4, 3, 8, 8), []
    for _ in range(5):
        network.train()
        network(images + torch.rand(1))
        seen_means.append(torch.cat([one.norm.running_mean for one in norms(network)]).clone())
    moved = [not torch.equal(*pair) for pair in pairwise(seen_means)]
    assert moved == [True, True, False, False]
    network.eval()
    network(images)
    assert {one.steps for one in norms(network)} == {5}  # judging is no step


class Killed(BaseException):
    """What no handler of the loop may catch."""


@pytest.mark.parametrize("steps_before_death", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_an_interrupted_training_settles_and_ends_as_an_unbroken_one(
    lesson: Lesson, tmp_path: Path, steps_before_death: int
) -> None:
    """It settles in its seventh step; died before and behind it."""

    def begin() -> nn.Module:
        network = normalised()
        normalising.settle_after(network, 7)
        return network

    unbroken, resumed = begin(), begin()
    history = loop.fit(unbroken, lesson, Run(tmp_path / "unbroken"), "x")
    deaths = iter([False] * steps_before_death + [True])

    def deadly(*arguments: Tensor) -> Tensor:
        if next(deaths):
            raise Killed
        return lesson.objective(*arguments)

    with pytest.raises(Killed):
        loop.fit(begin(), replace(lesson, objective=Asked(deadly)), Run(tmp_path / "broken"), "x")
    assert loop.fit(resumed, lesson, Run(tmp_path / "broken"), "x") == history
    pairs = zip(unbroken.state_dict().items(), resumed.state_dict().items(), strict=True)
    assert all(one[0] == other[0] and torch.equal(one[1], other[1]) for one, other in pairs)


def test_channels_stay_upright() -> None:
    network = normalised()
    held = Upright(network)
    for one in norms(network):
        one.norm.weight.data[::2] *= -1
    before = [one.norm.weight.detach().clone() for one in norms(network)]
    held.before()
    held.after(0.1)
    for one, weight in zip(norms(network), before, strict=True):
        assert torch.equal(one.norm.weight[1::2], weight[1::2])
        assert (one.norm.weight[::2] == normalising.TINIEST).all()
    normalising.fold(network)
    assert all((inserting.grid_of(layer.weight_quant).scale > 0).all() for _, layer in inserting.layers(network))


def test_its_steps_are_kept_with_its_weights() -> None:
    first, second = (Normalised(_bare(), torch.zeros(6), torch.ones(6)) for _ in range(2))
    first.steps = 5
    second.load_state_dict(first.state_dict())
    assert second.steps == 5


def test_a_channel_without_spread_makes_no_noise_loud() -> None:
    """Its weights are all zero in few bits; folded, its scale stays one that a bias can be counted in."""
    normal = Normalised(_bare(), torch.zeros(6), torch.ones(6))
    normal.norm.running_var[0] = 0.0  # pyright: ignore[reportOptionalSubscript]
    before = inserting.grid_of(normal.layer.weight_quant).scale.clone()
    normal.folded()
    factors = inserting.grid_of(normal.layer.weight_quant).scale / before
    assert factors[0] == pytest.approx(normalising.FARTHEST, rel=0.01)
    assert factors[1:].tolist() == pytest.approx([1.0] * 5, rel=0.01)


def _bare() -> Any:
    return calibrated("conv2d").network.get_submodule("layer")
