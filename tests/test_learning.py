"""Integer networks learn on: in few bits, down a ladder, with zeros that stay, beside controls that learn as long."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages.core import batches, evaluation, machine, params
from stages.core.networks import artifact
from stages.core.networks.artifact import Model
from stages.core.objectives import building
from stages.core.quantized import inserting, integers
from stages.core.quantized.grid import Grid
from stages.core.quantizing import calibration, integer
from stages.core.quantizing.course import Asked, Made
from stages.core.quantizing.normalising import Normalised
from stages.core.running.journal import Run
from stages.core.schooling import school
from stages.core.shipping import running, writing
from stages.core.training import loop, optimizers
from stages.core.training.loop import History
from tests.integer_networks import wanted
from tests.lessons import new

pytestmark = pytest.mark.slow

LABELS = {"name": "cross_entropy", "smoothing": 0.0}
Learn = Callable[..., tuple[Made, Model]]


@pytest.fixture
def learn(prepared: Path, taught: Path, settings: params.Params, tmp_path: Path) -> Learn:
    """The teacher goes on in few bits; what was made, and that network in floating point."""

    def go(method: params.Integer, sparse: float = 0.0, **changes: Any) -> tuple[Made, Model]:
        entry = settings.quantize.model_dump(mode="json")
        entry["training"] |= {"epochs": 1, "optimizer": entry["training"]["optimizer"] | {"weight_decay": 0.1}}
        entry |= {"method": method.model_dump(mode="json"), "recovery": LABELS, **changes}
        here = machine.choose(settings.compute, 0)
        given = {split: prepared / split for split in ("train", "val")}
        given |= {name: taught / name for name in ("teacher", "advice")}
        at = school.enter(**given, advise=settings.advise, augment=settings.augment, machine=here)
        model = artifact.load(taught / "teacher")
        _silence(model.network, sparse)
        images = [images for images, _ in batches.in_order(at.val)]
        before = evaluation.accuracy(evaluation.logits(model.network, at.val), at.val.labels)
        asked = Asked(params.Quantize.model_validate(entry), model, images, at, 0, Run(tmp_path / "run"), before)
        made = integer.make(asked, method)
        torch.use_deterministic_algorithms(mode=False)
        return made, model

    return go


def _silence(network: nn.Module, share: float) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            small = layer.weight.abs() <= layer.weight.abs().flatten().quantile(share) if share else layer.weight == 0
            layer.weight.data[small] = 0


def reloaded(made: Made, folder: Path) -> Model:
    made.save(folder, made.card)
    return integers.load(folder)


@pytest.mark.parametrize(
    "bits", [1, pytest.param("ternary", marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_few_bits_learn_and_zeros_stay(learn: Learn, tmp_path: Path, bits: params.WeightBits) -> None:
    """To the file, where one bit has none for zero."""
    made, dense = learn(wanted(weights=bits), sparse=0.6)
    [row] = made.histories["quantized"]
    assert all(math.isfinite(value) for value in row.values())
    model = reloaded(made, tmp_path / "model")
    codes = integers.all_codes(model.network)
    zeros = 0
    for name, matrix in codes.items():
        pruned = dense.network.get_submodule(name).weight == 0  # pyright: ignore[reportAttributeAccessIssue]
        assert (matrix[pruned] == 0).all(), name
        zeros += int((matrix == 0).sum())
        if made.facts["layers"][name]["bits"] == 1:
            assert torch.equal(matrix == 0, pruned)  # pyright: ignore[reportArgumentType]
    writing.write(model, tmp_path / "file.onnx", 18, {})
    assert running.zeros(tmp_path / "file.onnx") == pytest.approx(zeros / sum(map(torch.numel, codes.values())))
    assert zeros / sum(map(torch.numel, codes.values())) > 0.59
    assert not any(isinstance(module, Normalised) for module in model.network.modules())


@pytest.mark.slow
def test_down_a_ladder_beside_controls(learn: Learn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rung as long as it says; a float control of as many epochs in all, with the same seed."""
    seen: list[tuple[str, int, int, set[int]]] = []
    plain = loop.fit

    def noted(network: nn.Module, lesson: loop.Lesson, run: Run, name: str) -> History:
        found = {len(one.levels) for one in network.modules() if isinstance(one, Grid) and one.levels.lowest < 0}
        seen.append((name, lesson.settings.epochs, lesson.seed, found))
        return plain(network, lesson, run, name)

    monkeypatch.setattr(loop, "fit", noted)
    ladder = {"weights": [6, 4], "epochs": 1}
    made, _ = learn(wanted(weights=2, layers={"blocks.0": 5}), ladder=ladder, seeds=2, controls=True)
    rungs = ["at-6", "at-4", "quantized", "float"]
    assert [name for name, *_ in seen] == rungs + [f"{name}-1" for name in rungs]
    assert [epochs for _, epochs, *_ in seen] == [1, 1, 1, 3] * 2
    assert [seed for _, _, seed, _ in seen] == [0] * 4 + [1] * 4
    ends, block = 255, 31
    assert [found for *_, found in seen[:4]] == [{ends, 63}, {ends, block, 15}, {ends, block, 4}, set()]
    assert made.facts["budget"] == 3
    assert set(made.histories) == {name for name, *_ in seen}
    assert set(made.facts["seeds"]) == {"0", "1"}
    assert all(set(one) == {"quantized", "float", "rounded"} for one in made.facts["seeds"].values())
    first, second = made.histories["quantized"], made.histories["quantized-1"]
    assert first[0]["train_loss"] != second[0]["train_loss"]
    gains = [one["quantized"] - one["rounded"] for one in made.facts["seeds"].values()]
    assert made.facts["against"]["rounded"]["gain"] == pytest.approx(sum(gains) / 2)


def test_without_controls_there_are_none(learn: Learn, taught: Path) -> None:
    made, dense = learn(wanted(weights=4))
    before = artifact.load(taught / "teacher").network.state_dict()  # and what learns is a copy
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.network.state_dict().items())
    assert set(made.histories) == {"quantized"}
    assert made.facts["seeds"]["0"].keys() == {"quantized"}
    assert made.facts["against"] == {}


def test_scales_do_not_decay(settings: params.Params) -> None:
    """Those of channels, and the single one of a flow or of a tensor."""
    images = torch.randn(8, 3, 8, 8)
    optimizer = params.AdamW(name="adamw", rate=0.01, weight_decay=0.1)
    for scales in ("channel", "tensor"):
        network = calibration.calibrate(new().eval(), wanted(scales=scales), [images], seed=0).network
        groups = optimizers.build(optimizer, network, building.labels_alone()).param_groups
        decaying = {id(weight) for group in groups if group["weight_decay"] for weight in group["params"]}
        still = {id(weight) for group in groups if not group["weight_decay"] for weight in group["params"]}
        own = {id(module.growth) for module in network.modules() if isinstance(module, Grid)}
        assert own <= still
        assert {id(layer.weight) for _, layer in inserting.layers(network)} <= decaying
