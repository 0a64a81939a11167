"""From floating point to integers: bits of layers, ranges, moments, what stays as it was, what is refused."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.core.quantized import grid, inserting, integers
from stages.core.quantizing import calibration
from stages.core.quantizing.calibration import Integers
from stages.core.running.errors import Refusal
from stages.core.shipping import running, writing
from tests.integer_networks import NETWORKS, SMALL, dense, kept, made, pictures, wanted

pytestmark = pytest.mark.slow

FIRST, LAST = "conv1", "head.4"
FEW: dict[str, Any] = {"weights": 3, "activations": 4, "ends": 6}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return dense(SMALL)


def calibrated(network: nn.Module, seen: Tensor | None = None, **changes: object) -> Integers:
    images = pictures(8)[1] if seen is None else seen
    return calibration.calibrate(copy.deepcopy(network), wanted(**changes), [images], seed=0)


def test_the_ends_have_bits_of_their_own(network: nn.Module) -> None:
    found = calibrated(network, **FEW)
    assert {name: bits for name, bits in found.weights.items() if bits != 3} == {FIRST: 6, LAST: 6}
    assert FIRST not in found.free
    assert set(found.free) == found.weights.keys() - {FIRST, LAST}
    read_by_ends = {name for name, bits in found.flows.items() if bits == 6}
    assert set(found.flows.values()) == {4, 6}
    images = pictures(8)[1]
    codes = {name: len(_rounded(found.network, name, images).unique()) for name in found.flows}
    assert all(count <= 2 ** found.flows[name] for name, count in codes.items())
    assert max(codes[name] for name in read_by_ends) > 2**4


def _rounded(integer: nn.Module, name: str, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    one = inserting.grid_of(integer.get_submodule(name))
    hook = one.register_forward_hook(lambda _, __, result: seen.append(result[0]))
    with torch.no_grad():
        integer(images)
    hook.remove()
    return torch.cat([values.flatten() for values in seen])


def test_layers_by_their_name_and_by_their_block(network: nn.Module) -> None:
    found = calibrated(network, **FEW, layers={"blocks.0": 2, "blocks.0.conv2": "ternary", FIRST: 5})
    assert found.weights[FIRST] == 5
    assert found.weights["blocks.0.conv1"] == 2
    assert found.weights["blocks.0.conv2"] == "ternary"
    assert {bits for name, bits in found.weights.items() if name.startswith("blocks.1.")} == {3}
    levels = integers.levels(found.network)
    assert levels["blocks.0.conv1"] <= 4
    assert levels["blocks.0.conv2"] == 3
    assert not {FIRST, "blocks.0.conv1", "blocks.0.conv2"} & set(found.free)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": {"blocks.7": 4}}, r"quantize\.method\.layers: no layer blocks\.7; there are conv1, "),
        ({"keep": ["block"]}, r"quantize\.method\.keep: no layer block; there are conv1, "),
        ({"keep": ["conv1", "blocks", "head"]}, r"keep leaves every layer in floating point"),
    ],
)
def test_names_that_mean_nothing_are_refused(network: nn.Module, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        calibrated(network, **changes)


@pytest.mark.parametrize("kind", ["graph", "attention"])
@pytest.mark.slow
def test_what_is_kept_runs_in_floating_point(tmp_path: Path, kind: str) -> None:
    """A block and a layer: as many products of the file are in floating point, and all others are integers."""
    keep = {"graph": ["blocks.0", LAST], "attention": ["blocks.0.mlp", "head"]}[kind]
    settings = wanted(weights=4, keep=keep)
    found = made(NETWORKS[kind], settings)
    names = integers.kept(found.network)
    assert {name.removesuffix(".layer") for name in names} == {
        name
        for name, layer in found.merged.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and any(f"{name}.".startswith(f"{one}.") for one in keep)
    }
    back, (stored, seen) = kept(tmp_path / "model", NETWORKS[kind], settings, found), pictures(8, seed=1)
    with torch.no_grad():
        expected = back.network(seen)
        assert torch.equal(expected, found.network(seen))
    for name in names:
        inside, whole = back.network.get_submodule(name), found.merged.get_submodule(name)
        assert torch.equal(inside.layer.weight, -whole.weight)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue, reportOperatorIssue]
    writing.write(back, tmp_path / "file.onnx", 18, {})
    counts = running.kernels(tmp_path / "file.onnx")
    assert counts["float_kernels"] == len(names) > 1
    assert counts["integer_kernels"] == len(found.weights) > 1
    answered = torch.from_numpy(running.logits(tmp_path / "file.onnx", stored))
    assert ((answered - expected).abs().amax(1) < 1e-4).float().mean() > 0.8


def test_ranges_without_zero_points_reach_as_far_to_both_sides(network: nn.Module) -> None:
    seen = pictures(8)[1] - 1.5
    found = calibrated(network, seen, zero_points=False)
    lows = _lows(found.network, seen)
    signed = {name for name, low in lows.items() if low < 0}
    assert 1 < len(signed) < len(lows)
    for name, flow in inserting.flows(found.network):
        one = inserting.grid_of(flow)
        assert one.zero.item() == (128 if name in signed else 0), name
    with_zeros = calibrated(network, seen)
    grids = [inserting.grid_of(dict(inserting.flows(one.network))["x_quant.act_quant"]) for one in (found, with_zeros)]
    low, high = seen.aminmax()
    assert grids[0].scale.item() == pytest.approx(max(-low, high).item() / 127, rel=1e-5)
    zero = round((-low / (high - low) * 255).item())
    assert grids[1].zero.item() == zero
    assert grids[1].scale.item() == pytest.approx(max(-low / zero, high / (255 - zero)).item(), rel=1e-5)


@pytest.mark.parametrize("std", [0.5, 0.25])
def test_no_pixel_lies_between_two_codes(std: float) -> None:
    """A zero point in the middle of 255 steps would put every pixel there, and each runtime rounds its own way."""
    pixels = ((torch.arange(256) / 255 - 0.5) / std).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    found = calibrated(dense(NETWORKS["graph"]), pixels)
    one = inserting.grid_of(dict(inserting.flows(found.network))["x_quant.act_quant"])
    places = pixels / one.scale + one.zero
    assert places.min() >= -0.01
    assert places.max() <= 255.01
    assert ((places % 1 - 0.5).abs() > 1e-4).all()


def _lows(integer: nn.Module, images: Tensor) -> dict[str, float]:
    """The least that flows through each place, with only weights rounded."""
    found: dict[str, float] = {}
    places = [(name, inserting.grid_of(flow)) for name, flow in inserting.flows(integer)]

    def notes(name: str) -> Callable[..., None]:
        return lambda _, given: found.update({name: min(found.get(name, 0.0), given[0].min().item())})

    hooks = [one.register_forward_pre_hook(notes(name)) for name, one in places]
    with torch.no_grad(), calibration.exact(integer, weights=False):
        integer(images)
    for hook in hooks:
        hook.remove()
    return found


def test_one_scale_for_a_tensor_or_one_for_each_channel(network: nn.Module, tmp_path: Path) -> None:
    """Where nothing is merged or made equal, codes are the nearest ones, by hand."""
    weight = network.get_submodule(LAST).weight.detach()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    assert isinstance(weight, Tensor)
    for scales, largest in (("channel", weight.abs().amax(1)), ("tensor", weight.abs().max())):
        settings = wanted(scales=scales)
        found = calibrated(network, scales=scales)
        back = kept(tmp_path / scales, SMALL, settings, found).network
        for integer in (found.network, back):
            layer = dict(inserting.layers(integer))[LAST]
            scale = inserting.grid_of(layer.weight_quant).scale
            torch.testing.assert_close(scale.data, largest / 127)
            rows = (largest / 127).view(-1, 1)
            assert torch.equal(integers.codes(layer), (weight / rows).round())


def test_all_off_answers_as_in_floating_point(network: nn.Module) -> None:
    found, images = calibrated(network, weights=1, activations=2, ends=2), pictures(8)[1]
    with torch.no_grad():
        before = found.network(images)
        float_answers = found.merged(images)
        with calibration.exact(found.network):
            torch.testing.assert_close(found.network(images), float_answers, rtol=1e-5, atol=1e-5)
        assert (before - float_answers).abs().max() > 0.01
        assert torch.equal(found.network(images), before)
        with calibration.exact(found.network), calibration.exact(found.network):
            pass
        assert torch.equal(found.network(images), before)
        torch.testing.assert_close(float_answers, copy.deepcopy(network)(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("correct", ["bias", "moments"])
@pytest.mark.slow
def test_moments_are_put_right(network: nn.Module, correct: str) -> None:
    """Those of the network in floating point, where nothing but weights is rounded; and no code is another."""
    images = pictures(32)[1]
    few: dict[str, Any] = {"weights": 3, "ends": 3}
    left = calibrated(network, images, **few)
    found = calibrated(network, images, **few, correct=correct)
    float_mean, float_spread = _moments(found.merged, images)
    wrong, right = ([], [])
    for one, errors in ((left, wrong), (found, right)):
        with calibration.exact(one.network, weights=False):
            mean, spread = _moments(one.network, images)
        errors += [(mean - float_mean).abs().max().item(), (spread - float_spread).abs().max().item()]
    assert right[0] < 1e-4 < 0.01 < wrong[0]
    assert (right[1] < 1e-4) == (correct == "moments")
    assert wrong[1] > 0.01
    before, after = (integers.all_codes(one.network) for one in (left, found))
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def _moments(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of each layer."""
    found: list[Tensor] = []

    def note(_layer: object, _given: object, result: object) -> None:
        found.append(inserting.value(result).transpose(0, 1).flatten(1))

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    network(images)
    for hook in hooks:
        hook.remove()
    return torch.cat([one.mean(1) for one in found]), torch.cat([one.std(1, correction=0) for one in found])


def test_pictures_that_are_no_numbers_are_refused(network: nn.Module) -> None:
    images = pictures(8)[1]
    images[3, 1, 2, 2] = torch.nan
    with pytest.raises(Refusal, match="not finite: look at the calibration pictures"):
        calibrated(network, images)


@pytest.mark.slow
def test_more_bits_come_nearer(network: nn.Module) -> None:
    images = pictures(8)[1]
    errors = []
    for bits in (8, 4, "ternary", 1):
        found = calibrated(network, images, weights=bits, ends=8)
        with torch.no_grad():
            errors.append((found.network(images) - found.merged(images)).square().mean().item())
    assert errors == sorted(errors)


def test_a_scale_of_silence_is_no_zero(network: nn.Module) -> None:
    """Of a channel that is pruned away, and of a flow that nothing goes through."""
    silent = copy.deepcopy(network)
    layer = silent.get_submodule("head.0")
    assert isinstance(layer, nn.Linear)
    layer.weight.data.zero_()
    layer.bias.data.fill_(-1.0)  # ReLU leaves nothing
    found = calibrated(silent, weights=4)
    with torch.no_grad():
        answers = found.network(pictures(4)[1])
    assert torch.isfinite(answers).all()
    assert all(inserting.grid_of(flow).scale >= grid.TINIEST for _, flow in inserting.flows(found.network))
    assert integers.all_codes(found.network)["head.0"].count_nonzero() == 0
