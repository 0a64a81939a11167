"""Bits by a budget, against brute force; ways to calibrate, places that lose most, pictures in two splits."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stages.core import params
from stages.core.datasets.storage import Split
from stages.core.params import WeightBits
from stages.core.quantized import inserting
from stages.core.quantizing import allotting, calibration, overlap, searching
from stages.core.quantizing.allotting import Choice
from stages.core.quantizing.calibration import Integers
from stages.core.quantizing.searching import Tried
from stages.core.running.errors import Refusal
from tests.integer_networks import FACTS, SMALL, dense, pictures, wanted

BITS: Sequence[WeightBits] = (8, 4, "ternary", 1)


def table(layers: int, seed: int) -> list[Choice]:
    generator = np.random.default_rng(seed)
    return [
        Choice(f"layer {at}", bits, int(generator.integers(10, 200)), float(generator.uniform(0, 2)), 0.5)
        for at in range(layers)
        for bits in BITS
    ]


def combinations(found: Sequence[Choice]) -> list[tuple[Choice, ...]]:
    names = sorted({one.layer for one in found})
    return list(itertools.product(*([one for one in found if one.layer == name] for name in names)))


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    found = table(4, seed)
    every = combinations(found)
    sizes = sorted(sum(one.bytes for one in some) for some in every)
    for limit in (sizes[0], sizes[len(sizes) // 3], sizes[-1]):
        within = [some for some in every if sum(one.bytes for one in some) <= limit]
        expected = min(within, key=lambda some: sum(one.val_loss for one in some))
        assert allotting.best(found, limit) == {one.layer: one.bits for one in expected}


@pytest.fixture(scope="module")
def made() -> Integers:
    return calibration.calibrate(dense(SMALL), wanted(weights=8, layers={"blocks.0": 4}), [pictures(8)[1]], seed=0)


def stored_by_hand(made: Integers, bits: Mapping[str, WeightBits]) -> int:
    """Whole bits of each code, and a float for each channel."""
    whole = {8: 8, 4: 4, "ternary": 2, 1: 1}
    total = 0
    for name, layer in inserting.layers(made.network):
        total += math.ceil(layer.weight.numel() * whole[bits[name]] / 8) + 4 * len(layer.weight)
    return total


def priced(made: Integers, seed: int = 0) -> list[Choice]:
    """As `choices` asks, with a loss by chance."""
    generator = np.random.default_rng(seed)
    auto = params.Auto.model_validate({"choices": list(BITS), "budget": {"name": "bytes", "at_most": 1}})
    return allotting.choices(
        copy.deepcopy(made), auto, "channel", lambda _: {"val_loss": generator.uniform(), "val_accuracy": 0.5}
    )


def test_bytes_are_met_and_what_is_impossible_is_told(made: Integers) -> None:
    found = priced(made)
    assert {one.layer for one in found} == set(made.free)
    assert len(found) == len(made.free) * len(BITS)
    least = stored_by_hand(made, made.weights | dict.fromkeys(made.free, 1))
    most = stored_by_hand(made, made.weights)
    assert allotting.size(made, made.weights) == most
    for limit in (least, (least + most) // 2, most):
        bits = allotting.allot(made, found, params.Bytes(name="bytes", at_most=limit), lambda _: 0.0)
        assert set(bits) == set(made.free)
        assert stored_by_hand(made, made.weights | bits) <= limit
    with pytest.raises(
        Refusal, match=rf"at the fewest bits of choices the weights take {least} bytes, more than {least - 1}"
    ):
        allotting.allot(made, found, params.Bytes(name="bytes", at_most=least - 1), lambda _: 0.0)


def test_a_drop_is_met_with_few_bytes(made: Integers) -> None:
    """Here accuracy falls as bytes do, so that the smallest that is borne is known."""
    found = [dataclasses.replace(one, val_loss=-float(one.bytes)) for one in priced(made)]
    whole = stored_by_hand(made, made.weights)

    def drop(bits: Mapping[str, WeightBits]) -> float:
        return 1 - stored_by_hand(made, made.weights | dict(bits)) / whole

    bits = allotting.allot(made, found, params.Drop(name="drop", at_most=0.3), drop)
    assert 0.1 < drop(bits) <= 0.3
    with pytest.raises(Refusal, match=r"even at the most bits of choices accuracy on val falls by 40\.00%, more than"):
        allotting.allot(made, found, params.Drop(name="drop", at_most=0.3), lambda _: 0.4)


def test_each_layer_is_asked_alone(made: Integers) -> None:
    """And has its own bits again."""
    asked: list[dict[str, int]] = []
    mine = copy.deepcopy(made)

    def judge(network: nn.Module) -> dict[str, float]:
        asked.append({name: len(inserting.grid_of(one.weight_quant).levels) for name, one in inserting.layers(network)})
        return {"val_loss": 0.0, "val_accuracy": 0.0}

    auto = params.Auto.model_validate({"choices": [8, 2], "budget": {"name": "bytes", "at_most": 1}})
    allotting.choices(mine, auto, "channel", judge)
    own = {name: 255 if bits == 8 else 15 for name, bits in made.weights.items()}
    expected = [own | {name: levels} for name in made.free for levels in (255, 4)]
    assert asked == expected
    assert all(torch.equal(one, other) for one, other in zip(_codes(mine), _codes(made), strict=True))


def _codes(made: Integers) -> list[torch.Tensor]:
    return list(calibration.integers.all_codes(made.network).values())


def test_no_layer_is_free() -> None:
    settings = wanted(layers={"conv1": 8, "blocks": 8, "head": 8})
    bound = calibration.calibrate(dense(SMALL), settings, [pictures(4)[1]], seed=0)
    auto = params.Auto.model_validate({"choices": [8, 2], "budget": {"name": "bytes", "at_most": 1}})
    with pytest.raises(Refusal, match="no layer's bits are free"):
        allotting.choices(bound, auto, "channel", lambda _: {})


def test_the_best_way_is_the_most_accurate_then_the_surest_then_the_first() -> None:
    tried = [Tried({"at": at}, *judged) for at, judged in enumerate([(0.8, 0.1), (0.9, 0.5), (0.9, 0.3), (0.9, 0.3)])]
    assert searching.best(tried).way == {"at": 2}


@pytest.mark.parametrize(
    ("changes", "count"), [({"range": {"name": "percentile", "percentile": 99.0}}, 11), (dict(searching.WAYS[4]), 10)]
)
def test_own_settings_come_first_and_once(changes: dict[str, Any], count: int) -> None:
    asked: list[params.Integer] = []

    def calibrate(settings: params.Integer) -> Integers:
        asked.append(settings)
        return Integers(nn.Identity(), nn.Identity(), {}, ())

    settings = wanted(**changes)
    found = searching.ways(settings, calibrate, lambda _: {"val_accuracy": 0.5, "val_loss": 1.0})
    assert asked[0] == settings
    assert len(found) == len(asked) == count
    assert len({one.model_dump_json() for one in asked}) == count
    assert searching.changed(settings, found[0].way) == settings
    assert {(one.weights, one.activations, one.ends, one.rounding) for one in asked} == {
        (settings.weights, settings.activations, settings.ends, settings.rounding)
    }


def test_a_layer_that_one_scale_does_not_fit_is_named() -> None:
    """One channel a thousand times as large leaves the others no codes, where they share a scale."""
    network, images = dense(SMALL), pictures(16)[1]
    planted = "blocks.1.conv1"
    layer = network.get_submodule(planted)
    assert isinstance(layer, nn.Conv2d)
    norm = network.get_submodule("blocks.1.bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.weight.data[0] *= 1000
    norm.bias.data[0] = -1e6  # which nobody hears
    made = calibration.calibrate(network, wanted(scales="tensor"), [images], seed=0)
    with torch.no_grad():
        right = made.merged(images)
        before = made.network(images)

    @torch.no_grad()
    def judge(network: nn.Module) -> dict[str, float]:
        return {"val_accuracy": -float((network(images) - right).square().mean())}

    found = searching.scan(made, judge)
    places = {name for name, _ in [*inserting.layers(made.network), *inserting.flows(made.network)]}
    assert found.keys() == places
    assert all(found[name] > found[planted] for name in places - {planted})
    with torch.no_grad():
        assert torch.equal(made.network(images), before)


def split(images: np.ndarray) -> Split:
    return Split(FACTS, images, np.zeros(len(images), int))


def test_pictures_in_both_splits_are_refused(settings: params.Params) -> None:
    one, other = pictures(20, seed=1)[0], pictures(9, seed=2)[0]
    overlap.refuse(split(one), split(other))
    planted = np.concatenate([other, one[7:8]])
    with pytest.raises(Refusal, match="1 of the calibration pictures are in val, too, pixel by pixel"):
        overlap.refuse(split(one), split(planted))
    training = settings.quantize.training.model_copy(update={"batch_size": 20})
    overlap.refuse_few(split(one), training)
    with pytest.raises(Refusal, match=r"19 calibration pictures are less than a batch of 20"):
        overlap.refuse_few(split(one[1:]), training)
