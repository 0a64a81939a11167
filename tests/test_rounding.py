"""Codes against the algorithms as their papers tell them, on inputs and not on Gram matrices."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from stages.core import params
from stages.core.params import WeightBits
from stages.core.quantized import grid
from stages.core.quantized.grid import Levels
from stages.core.quantizing import rounding
from stages.core.quantizing.rounding import Seen
from stages.core.running.errors import Refusal

pytestmark = pytest.mark.slow

BITS: Sequence[WeightBits] = (1, "ternary", 2, 3, 4, 5, 6, 7, 8)
DAMPING = 0.01


def gpfq(penalty: str = "l1", threshold: float = 0.0, stochastic: bool = False) -> params.GPFQ:
    return params.GPFQ(name="gpfq", penalty=penalty, threshold=threshold, stochastic=stochastic)  # pyright: ignore[reportArgumentType]


NEAREST = params.Nearest(name="nearest")
ADAROUND = params.AdaRound(name="adaround", iterations=150)
GPTQ = params.GPTQ(name="gptq", damping=DAMPING)
METHODS = {
    "nearest": NEAREST,
    "adaround": ADAROUND,
    "gptq": GPTQ,
    "gpfq": gpfq(),
    "gpfq, drawn": gpfq(stochastic=True),
    "gpfq, small ones gone": gpfq("l0", threshold=0.6),
}
of_each_method = pytest.mark.parametrize("settings", METHODS.values(), ids=METHODS.keys())


class Layer:
    """Inputs that go together, as pixels do, and a little noise where they are quantized."""

    def __init__(self, columns: int = 20, channels: int = 6, pictures: int = 90, noise: float = 0.1, seed: int = 0):
        drawn = torch.Generator().manual_seed(seed)
        mixed = torch.eye(columns) + torch.randn(columns, columns, generator=drawn) / columns**0.5
        self.exact = (torch.randn(pictures, columns, generator=drawn) @ mixed).relu().double()
        self.inputs = self.exact + noise * torch.randn(pictures, columns, generator=drawn).double()
        self.weights = torch.randn(channels, columns, generator=drawn)
        self.silent = torch.rand(channels, columns, generator=drawn) < 0.3

    @property
    def seen(self) -> Seen:
        return Seen(self.inputs.T @ self.inputs, self.inputs.T @ self.exact, self.exact.T @ self.exact)

    def scale(self, levels: Levels) -> Tensor:
        return self.weights.abs().amax(1, keepdim=True) / max(levels.highest, 2)

    def round(self, settings: params.Rounding, bits: WeightBits, seed: int = 0, zeros: Tensor | None = None) -> Tensor:
        return self.rounded(settings, bits, seed, zeros).codes

    def rounded(
        self, settings: params.Rounding, bits: WeightBits, seed: int = 0, zeros: Tensor | None = None
    ) -> rounding.Rounded:
        levels = grid.of_weights(bits)
        return rounding.round(settings, self.weights, self.scale(levels), levels, self.seen, seed, zeros)

    def error(self, codes: Tensor, scale: Tensor) -> Tensor:
        wanted = self.exact @ self.weights.double().T
        missed = self.inputs @ (scale.double() * codes.double()).T - wanted
        return missed.square().sum(0) / wanted.square().sum(0)

    def unguarded(self, settings: params.Rounding, bits: WeightBits, zeros: Tensor | None = None) -> Tensor:
        """A method's codes for all channels, also where the nearest ones are better."""
        levels = grid.of_weights(bits)
        free = torch.ones_like(self.weights, dtype=torch.bool) if zeros is None else ~zeros
        places = self.weights.double() / self.scale(levels).double()
        task = rounding.Task(places, free, levels, self.seen, 0)
        return rounding.ROUNDINGS[settings.name](settings, task)


def allowed(levels: Levels) -> Tensor:
    return torch.arange(levels.lowest, levels.highest + 1, levels.step).double()


def closest(place: Tensor, levels: Levels) -> Tensor:
    codes = allowed(levels)
    return codes[(place.unsqueeze(-1) - codes).abs().argmin(-1)]


@pytest.mark.parametrize("bits", BITS)
def test_nearest_is_nearest(bits: WeightBits) -> None:
    layer, levels = Layer(), grid.of_weights(bits)
    expected = closest(layer.weights.double() / layer.scale(levels).double(), levels)
    assert torch.equal(layer.round(NEAREST, bits), expected.float())


def by_surgeon(layer: Layer, bits: WeightBits, zeros: Tensor) -> Tensor:
    """Optimal Brain Quantization in the order of columns: each inverse is computed anew (Frantar et al. 2022)."""
    levels = grid.of_weights(bits)
    places = layer.weights.double() / layer.scale(levels).double()
    gram = layer.inputs.T @ layer.inputs
    damping = DAMPING * gram.diagonal().mean() * torch.eye(len(gram)).double()
    wanted = (layer.inputs.T @ layer.exact + damping) @ places.T
    left = torch.linalg.lstsq(gram + damping, wanted).solution.T
    codes = torch.zeros_like(left)
    for column in range(len(gram)):
        codes[:, column] = closest(left[:, column], levels) * ~zeros[:, column]
        inverse = torch.linalg.inv((gram + damping)[column:, column:])
        missed = (left[:, column] - codes[:, column]) / inverse[0, 0]
        left[:, column:] -= missed.unsqueeze(1) * inverse[0]
    return codes


@pytest.mark.parametrize("block", [7, 128])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("bits", [1, "ternary", 3, 8])
def test_gptq_removes_column_by_column(
    bits: WeightBits, noise: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "BLOCK", block)
    layer = Layer(noise=noise)
    for zeros in (torch.zeros_like(layer.silent), layer.silent):
        assert torch.equal(layer.unguarded(GPTQ, bits, zeros), by_surgeon(layer, bits, zeros))


def along_the_path(layer: Layer, bits: WeightBits, settings: params.GPFQ, zeros: Tensor) -> Tensor:
    """Lybrand and Saab 2021, Zhang and Saab 2023: neuron by neuron, on the inputs themselves."""
    levels = grid.of_weights(bits)
    codes = torch.zeros_like(layer.weights, dtype=torch.float64)
    for channel, weights in enumerate(layer.weights.double() / layer.scale(levels).double()):
        path = torch.zeros(len(layer.inputs)).double()
        for column, weight in enumerate(weights):
            exact, given = layer.exact[:, column], layer.inputs[:, column]
            place = given @ (path + weight * exact) / given.square().sum()
            if settings.penalty == "l1":
                place = place.sign() * (place.abs() - settings.threshold).clamp(min=0)
            elif place.abs() <= settings.threshold:
                place = torch.zeros(()).double()
            code = closest(place, levels) * ~zeros[channel, column]
            path += weight * exact - code * given
            codes[channel, column] = code
    return codes


@pytest.mark.parametrize("block", [7, 128])
@pytest.mark.parametrize("settings", [gpfq(), gpfq("l1", 0.7), gpfq("l0", 1.3)], ids=["plain", "l1", "l0"])
@pytest.mark.parametrize("bits", ["ternary", 3, 8])
def test_gpfq_follows_the_path_of_the_answers(
    bits: WeightBits, settings: params.GPFQ, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounding, "BLOCK", block)
    layer = Layer()
    for zeros in (torch.zeros_like(layer.silent), layer.silent):
        found = layer.unguarded(settings, bits, zeros)
        assert torch.equal(found, along_the_path(layer, bits, settings, zeros))


def test_gpfq_draws_up_as_often_as_what_is_left_over() -> None:
    """One column, so that no other pulls: in the mean the weight itself."""
    weights = torch.tensor([0.25, 1.9, -0.6, 2.0, 9.0]).repeat_interleave(4000).unsqueeze(1)
    seen, levels = Seen(*[torch.eye(1).double()] * 3), grid.of_weights(4)
    places, free = weights.double(), torch.ones_like(weights, dtype=torch.bool)
    task = rounding.Task(places, free, levels, seen, 0)
    codes = rounding.ROUNDINGS["gpfq"](gpfq(stochastic=True), task).view(5, 4000)
    assert codes.mean(1) == pytest.approx([0.25, 1.9, -0.6, 2.0, 7.0], abs=0.03)
    assert codes[0].unique().tolist() == [0, 1]
    assert codes[2].unique().tolist() == [-1, 0]


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("bits", [1, "ternary", 2, 4])
def test_adaround_comes_near_the_best_of_all_choices(bits: WeightBits, pruned: bool) -> None:
    """Of up and down for each of nine weights, by trying all 512; zeros are made up for by the others."""
    layer, levels = Layer(columns=9, channels=8), grid.of_weights(bits)
    scale, free = layer.scale(levels), ~layer.silent | (not pruned)
    under = allowed(levels)[:-1]  # a weight beyond the last code may have the one before it, too
    below = under[((layer.weights / scale).unsqueeze(-1) >= under).sum(-1).sub(1).clamp(min=0)]
    choices = torch.tensor(list(itertools.product([0, levels.step], repeat=9)))
    best = torch.stack([layer.error((below + choice) * free, scale) for choice in choices]).amin(0)
    settings = params.AdaRound(name="adaround", iterations=600)
    found, nearest = (layer.error(layer.unguarded(one, bits, ~free), scale) for one in (settings, NEAREST))
    assert (found >= best - 1e-9).all()
    assert (found - best).mean() < 0.3 * (nearest - best).mean()


@pytest.mark.parametrize("bits", ["ternary", 2, 3, 4, 8])
def test_where_inputs_go_together_nearest_is_beaten(bits: WeightBits) -> None:
    layer = Layer(columns=32, channels=12, pictures=200, noise=0.0)
    for name in ("adaround", "gptq", "gpfq"):
        found = layer.rounded(METHODS[name], bits)
        assert found.error.mean() < 0.9 * found.nearest.mean(), name


@of_each_method
@pytest.mark.parametrize("bits", BITS)
def test_codes_are_allowed_and_no_channel_is_worse_than_nearest(bits: WeightBits, settings: params.Rounding) -> None:
    for seed in range(2):
        layer, levels = Layer(noise=0.3, seed=seed), grid.of_weights(bits)
        found, nearest = layer.rounded(settings, bits), layer.round(NEAREST, bits)
        assert set(found.codes.unique().tolist()) <= set(allowed(levels).tolist())
        assert torch.allclose(found.error, layer.error(found.codes, layer.scale(levels)))
        assert torch.allclose(found.nearest, layer.error(nearest, layer.scale(levels)))
        assert (found.error <= found.nearest).all()


def test_channels_that_a_method_makes_worse_stay_nearest() -> None:
    layer, bits = Layer(noise=0.0), 4
    settings = gpfq(stochastic=True)
    scale = layer.scale(grid.of_weights(bits))
    nearest, own, found = layer.round(NEAREST, bits), layer.unguarded(settings, bits), layer.round(settings, bits)
    better = layer.error(own, scale) < layer.error(nearest, scale)
    assert 0 < better.sum() < len(better)
    assert torch.equal(found[better], own[better].float())
    assert torch.equal(found[~better], nearest[~better])


@of_each_method
@pytest.mark.parametrize("bits", [1, 4])
def test_pruned_weights_stay_zero(bits: WeightBits, settings: params.Rounding) -> None:
    layer = Layer(noise=0.0)
    layer.weights[layer.silent] = 0
    found = layer.round(settings, bits, zeros=layer.silent)
    assert found[layer.silent].abs().max() == 0
    assert layer.unguarded(settings, bits, zeros=layer.silent)[layer.silent].abs().max() == 0
    assert found[~layer.silent].abs().max() > 0


@of_each_method
def test_columns_that_are_never_active_keep_the_nearest_code(settings: params.Rounding) -> None:
    layer = Layer()
    dead = [0, 3, 19]
    layer.exact[:, dead] = 0
    layer.inputs[:, dead] = 0
    found, nearest = layer.round(settings, 4), layer.round(NEAREST, 4)
    assert torch.equal(found[:, dead], nearest[:, dead])
    assert torch.equal(found, nearest) == isinstance(settings, params.Nearest)
    layer.exact[:], layer.inputs[:] = 0, 0
    assert torch.equal(layer.round(settings, 4), layer.round(NEAREST, 4))
    assert layer.rounded(settings, 4).error.tolist() == [0] * 6


def test_a_singular_layer_is_damped_until_it_can_be_factored() -> None:
    """Fewer pictures than columns, and a damping that is lost in the sums."""
    layer = Layer(columns=40, pictures=5, noise=0.0)
    found = layer.rounded(params.GPTQ(name="gptq", damping=1e-30), 3)
    assert torch.isfinite(found.codes).all()
    assert found.error.mean() < 0.5 * found.nearest.mean()


@of_each_method
def test_equal_seeds_give_equal_codes(settings: params.Rounding) -> None:
    layer = Layer(columns=64)
    one, again, other = (layer.round(settings, 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert torch.equal(one, other) != getattr(settings, "stochastic", False)


@pytest.mark.parametrize("settings", [NEAREST, ADAROUND, GPTQ, gpfq()], ids=lambda settings: settings.name)
def test_layers_of_one_shape_go_together(settings: params.Rounding) -> None:
    """As the groups of a convolution: what each would be alone."""
    layers, levels = [Layer(seed=seed) for seed in range(3)], grid.of_weights(4)
    seen = [layer.seen for layer in layers]
    together = rounding.round(
        settings,
        torch.stack([layer.weights for layer in layers]),
        torch.stack([layer.scale(levels) for layer in layers]),
        levels,
        Seen(*(torch.stack(parts) for parts in zip(*((s.gram, s.cross, s.own) for s in seen), strict=True))),
        0,
    )
    for number, layer in enumerate(layers):
        alone = layer.rounded(settings, 4)
        assert torch.equal(together.codes[number], alone.codes)
        assert torch.allclose(together.error[number], alone.error)


def test_what_is_not_finite_is_refused() -> None:
    layer = Layer()
    layer.inputs[3, 4] = float("nan")
    with pytest.raises(Refusal, match="look at the calibration pictures"):
        layer.round(GPTQ, 4)


def test_all_methods_of_params_are_in_the_table() -> None:
    assert {settings.name for settings in METHODS.values()} == set(rounding.ROUNDINGS)
