"""The stage that prunes: cut by cut, with recovery between, beside what the same epochs do otherwise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from stages import prune
from stages.core import batches, counting, evaluation, machine, params, zeros
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.pruning import cutting, goals, trial
from stages.core.pruning.lasso import Lasso
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import loop


def run(prepared: Path, settings: params.Params, taught: Path, to: Path, **changes: Any) -> dict[str, Any]:
    """The teacher itself is what is pruned."""
    wanted: dict[str, Any] = settings.prune.model_dump(mode="json") | {"round_to": 1, "sparsity": 0.6} | changes
    to.mkdir(exist_ok=True)
    prune.main(
        run=Run(to / "run"),
        prune=params.Prune.model_validate(wanted),
        advise=settings.advise,
        augment=settings.augment,
        compute=settings.compute,
        seed=0,
        **{split: prepared / split for split in ("train", "calibration", "val")},
        teacher=taught / "teacher",
        advice=taught / "advice",
        student=taught / "teacher",
        pruned=to / "pruned",
        metrics=to / "metrics.json",
        history=to / "curves.csv",
        scanned=to / "sensitivity.csv",
    )
    torch.use_deterministic_algorithms(mode=False)
    return json.loads((to / "metrics.json").read_text())


def names(folder: Path) -> list[str]:
    rows = (folder / "curves.csv").read_text().splitlines()[1:]
    return list(dict.fromkeys(row.split(",")[0] for row in rows))


@pytest.mark.slow
def test_cut_by_cut(prepared: Path, settings: params.Params, taught: Path, tmp_path: Path) -> None:
    found = run(prepared, settings, taught, tmp_path, steps=3, between=2, controls=False)
    assert [cut["removed"] for cut in found["steps"].values()] == pytest.approx([0.2, 0.4, 0.6], abs=0.02)
    assert found["parameters_removed"] == found["steps"]["3"]["removed"]
    assert found["val_accuracy_before_recovery"] == found["steps"]["3"]["val_accuracy"]
    assert names(tmp_path) == ["cut-1", "cut-2", "pruned"]
    assert (tmp_path / "curves.csv").read_text().count("cut-1") == 2
    assert found["controls"] is None
    pruned, dense = artifact.load(tmp_path / "pruned").network, artifact.load(taught / "teacher").network
    assert 1 - counting.parameters(pruned) / counting.parameters(dense) == found["parameters_removed"]
    val = batches.on_device(storage.load(prepared / "val"), machine.choose(settings.compute, 0))
    torch.use_deterministic_algorithms(mode=False)
    assert evaluation.accuracy(evaluation.logits(pruned, val), val.labels) == found["val_accuracy"]


@pytest.mark.slow
def test_without_recovery_between_no_epoch_is_spent(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    run(prepared, settings, taught, tmp_path, steps=2, between=0, controls=False)
    assert names(tmp_path) == ["pruned"]


@pytest.mark.slow
def test_controls_learn_as_long(prepared: Path, settings: params.Params, taught: Path, tmp_path: Path) -> None:
    """One with all channels, that begins where the student was; one as narrow, that begins with nothing."""
    found = run(prepared, settings, taught, tmp_path)
    assert names(tmp_path) == ["pruned", "uncut", "from-scratch"]
    epochs = settings.prune.training.epochs
    assert {name: lesson["epochs"] for name, lesson in found["controls"].items()} == {
        "uncut": epochs,
        "from-scratch": epochs,
    }
    nothing = run(prepared, settings, taught, tmp_path / "nothing", sparsity=0.0, controls=False)
    assert nothing["parameters_removed"] == 0
    assert found["controls"]["uncut"] == {name: nothing[name] for name in found["controls"]["uncut"]}
    card, trained = artifact.read_card(tmp_path / "pruned"), artifact.read_weights(tmp_path / "pruned")
    torch.manual_seed(0)
    begun = artifact.begin(card).state_dict()
    assert {name: value.shape for name, value in begun.items()} == {
        name: value.shape for name, value in trained.items()
    }
    assert all(value.isfinite().all() for value in begun.values())
    weights = [name for name, value in begun.items() if value.ndim > 1]
    assert all(begun[name].std() > 0 and not torch.equal(begun[name], trained[name]) for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize("importance", [{"name": "taylor", "pictures": 16}, {"name": "hessian", "pictures": 16}])
def test_gradients_are_those_of_the_calibration_pictures(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path, importance: dict[str, Any]
) -> None:
    """Of as many as asked; others are not looked at, which other pictures behind them show."""
    kept = [run(prepared, settings, taught, tmp_path / "first", importance=importance, controls=False)["channels"]]
    split = storage.load(prepared / "calibration")
    for name, changed in (("after", slice(16, None)), ("among", slice(0, 16))):
        images = split.images.copy()
        images[changed] = 255 - images[changed][:, ::-1]
        folder = tmp_path / name
        folder.mkdir()
        for other in ("train", "val"):
            (folder / other).symlink_to(prepared / other)
        storage.write(folder / "calibration", iter(images), split.labels, split.facts, split.roll())
        kept.append(run(folder, settings, taught, folder, importance=importance, controls=False)["channels"])
    weights = [artifact.read_weights(tmp_path / name / "pruned") for name in ("first", "after", "among")]
    assert kept[0] == kept[1]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert kept[0] != kept[2] or any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


ZEROS = {"name": "scattered", "share": 0.9, "importance": {"name": "magnitude"}, "ranking": "global"}


@pytest.mark.slow
def test_zeros_stay_to_the_end(prepared: Path, settings: params.Params, taught: Path, tmp_path: Path) -> None:
    """Through gradual cuts and recovery; counted in the file that is kept, whose bytes they save."""
    found = run(prepared, settings, taught, tmp_path, sparsity=0.0, zeros=ZEROS, steps=3, pace="cubic")
    weights = [value for value in artifact.read_weights(tmp_path / "pruned").values() if value.ndim > 1]
    share = sum(int((value == 0).sum()) for value in weights) / sum(value.numel() for value in weights)
    assert share == found["zeros"] == pytest.approx(0.9, abs=0.001)
    due = [1 - (1 - step / 3) ** 3 for step in (1, 2, 3)]
    assert [cut["zeros"] for cut in found["steps"].values()] == pytest.approx([0.9 * part for part in due], abs=0.001)
    assert found["after"]["bytes"] < 0.3 * found["before"]["bytes"]
    assert found["bytes_removed"] == 1 - found["after"]["bytes"] / found["before"]["bytes"]
    assert (found["parameters_removed"], found["after"]["parameters"]) == (0, found["before"]["parameters"])
    assert found["after"]["nonzero"] < 0.15 * found["after"]["parameters"]


def test_channels_go_first_then_weights(prepared: Path, settings: params.Params, taught: Path, tmp_path: Path) -> None:
    found = run(prepared, settings, taught, tmp_path, sparsity=0.5, zeros=ZEROS | {"share": 0.5}, controls=False)
    assert found["parameters_removed"] == pytest.approx(0.5, abs=0.02)
    assert found["zeros"] == pytest.approx(0.5, abs=0.001)


@pytest.mark.slow
def test_controls_learn_as_long_as_all_the_lessons_together(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before the first cut and between cuts count; and the narrow one begins with the very same zeros."""
    began: dict[str, list[torch.Tensor]] = {}
    fit = loop.fit

    def noted(network: nn.Module, lesson: loop.Lesson, run: Run, name: str) -> loop.History:
        began[name] = [weight == 0 for weight in zeros.weights(network).values()]
        return fit(network, lesson, run, name)

    monkeypatch.setattr(loop, "fit", noted)
    lasso = {"epochs": 2, "strength": 0.1}
    found = run(prepared, settings, taught, tmp_path, steps=2, between=2, lasso=lasso, zeros=ZEROS)
    pairs = list(zip(began["pruned"], began["from-scratch"], strict=True))
    assert sum(int(gone.sum()) for gone, _ in pairs) > 0
    assert all(torch.equal(gone, begun) for gone, begun in pairs)
    assert not any(gone.any() for gone in began["uncut"])
    assert names(tmp_path) == ["drawn", "cut-1", "pruned", "uncut", "from-scratch"]
    wanted = settings.prune.model_dump(mode="json") | {"steps": 2, "between": 2, "lasso": lasso}
    assert trial.budget(params.Prune.model_validate(wanted)) == 2 + 2 + 3
    rows = (tmp_path / "curves.csv").read_text()
    assert [rows.count(name) for name in ("drawn", "cut-1", "pruned")] == [2, 2, 3]
    rate = [float(row.split(",")[2]) for row in rows.splitlines() if row.startswith("uncut,")]
    assert len(rate) <= 7
    assert rate[2] > 0.3 * rate[0]  # a schedule over seven epochs, not over three
    assert found["controls"]["from-scratch"]["epochs"] <= 7


@pytest.mark.slow
def test_seeds_have_their_own_lessons(prepared: Path, settings: params.Params, taught: Path, tmp_path: Path) -> None:
    """The first goes on; the interval is that of its differences."""
    found = run(prepared, settings, taught, tmp_path / "two", seeds=2)
    alone = run(prepared, settings, taught, tmp_path / "one")
    assert [list(seed) for seed in found["seeds"].values()] == [["pruned", "uncut", "from-scratch"]] * 2
    assert found["seeds"]["0"] == alone["seeds"]["0"]
    two, one = (artifact.read_weights(tmp_path / name / "pruned") for name in ("two", "one"))
    assert all(torch.equal(two[key], one[key]) for key in two)
    histories = (tmp_path / "two" / "curves.csv").read_text()
    losses = {name: histories.split(f"\n{name},1,")[1].split(",")[1] for name in ("pruned", "pruned-1")}
    assert losses["pruned"] != losses["pruned-1"]
    for control, against in found["against"].items():
        gains = [seed["pruned"] - seed[control] for seed in found["seeds"].values()]
        interval = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
        assert against["gain"] == pytest.approx(np.mean(gains))
        if np.ptp(gains) > 0:
            assert (against["low"], against["high"]) == pytest.approx((interval.low, interval.high))
    assert {against["verdict"] for against in alone["against"].values()} == {"not shown"}


@pytest.mark.slow
def test_a_scan_tells_what_each_layer_bears(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    """On val, the network as it came; and the layers that bear most lose most."""
    found = run(
        prepared, settings, taught, tmp_path, scan=[0.3, 0.6], ranking="sensitivity", sparsity=0.3, controls=False
    )
    table = pd.read_csv(tmp_path / "sensitivity.csv")
    assert set(table.share) == {0.0, 0.3, 0.6}
    whole = table[table.share == 0].drop(columns="layer").drop_duplicates()
    assert len(whole) == 1
    val = batches.on_device(storage.load(prepared / "val"), machine.choose(settings.compute, 0))
    torch.use_deterministic_algorithms(mode=False)
    answers = evaluation.logits(artifact.load(taught / "teacher").network, val)
    assert whole.val_accuracy.item() == evaluation.accuracy(answers, val.labels)
    assert found["parameters_removed"] == pytest.approx(0.3, abs=0.02)
    uniform = run(prepared, settings, taught, tmp_path / "uniform", ranking="layerwise", sparsity=0.3, controls=False)
    assert found["channels"] != uniform["channels"]
    assert (tmp_path / "uniform" / "sensitivity.csv").read_text().strip() == "layer,share,val_accuracy,val_loss"


def test_whole_blocks_go_first(prepared: Path, settings: params.Params, taught: Path, tmp_path: Path) -> None:
    found = run(prepared, settings, taught, tmp_path, blocks=1, sparsity=0.0, controls=False)
    [gone] = found["blocks"]
    assert found["parameters_removed"] > 0.1
    assert {name for name, width in found["channels"].items() if not width["after"]} == {
        name for name in found["channels"] if name.startswith(f"{gone}.")
    }
    pruned = artifact.load(tmp_path / "pruned").network
    assert isinstance(pruned.get_submodule(gone), torch.nn.Identity)
    assert found["steps"]["1"]["removed"] == found["parameters_removed"]


@pytest.mark.slow
def test_each_seed_has_controls_of_its_own_shape(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts at random are others for every seed, and what begins from scratch is as narrow as what was cut."""
    sizes: dict[str, int] = {}
    fit = loop.fit

    def noted(network: nn.Module, lesson: loop.Lesson, run: Run, name: str) -> loop.History:
        sizes[name] = counting.multiply_accumulates(network, lesson.val.images.shape[1])
        return fit(network, lesson, run, name)

    monkeypatch.setattr(loop, "fit", noted)
    run(prepared, settings, taught, tmp_path, seeds=2, importance={"name": "random"}, zeros=ZEROS | {"share": 0.5})
    assert sizes["pruned"] == sizes["from-scratch"] != sizes["pruned-1"] == sizes["from-scratch-1"]
    assert sizes["uncut"] == sizes["uncut-1"] > max(sizes["pruned"], sizes["pruned-1"])


def test_a_stage_that_was_interrupted_keeps_its_cuts(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured milliseconds are never the same again; what was cut is, and so is what it ends with."""
    measured = iter([0.0, 0.3, 0.0, 0.6])

    def restless(_dense: artifact.Model) -> Any:
        shift = next(measured)
        return lambda network: 0.0 if counting.parameters(network) > 20_000 else 0.3 + 0.3 * shift

    monkeypatch.setitem(goals.GOALS, "milliseconds", restless)  # pyright: ignore[reportArgumentType]
    changes = {"of": "milliseconds", "sparsity": 0.3, "controls": False}
    whole = run(prepared, settings, taught, tmp_path / "whole", **changes)
    fit = loop.fit

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    broken = tmp_path / "broken"
    next(measured)
    monkeypatch.setattr(loop, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, settings, taught, broken, **changes)
    monkeypatch.setattr(loop, "fit", fit)
    monkeypatch.setattr(cutting, "shrink", None)
    found = run(prepared, settings, taught, broken, **changes)
    first, again = (artifact.read_weights(folder / "pruned") for folder in (tmp_path / "whole", broken))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert found["steps"] == whole["steps"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"sparsity": 0.0, "lasso": {"epochs": 1, "strength": 1e4}},
            "prune.lasso drew all of layer conv1 to zero",
        ),
        (
            {"blocks": 2, "protect": ["blocks.0", "blocks.1"]},
            "of this network 0 blocks can go, not 2: lower",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refusal, match=f"^{reason}"):
        run(prepared, settings, taught, tmp_path, controls=False, **changes)
    assert not (tmp_path / "pruned").exists()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_the_lasso_drew_learns_again_where_no_zeros_are_asked_for(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    def draw(self: Lasso, rate: float) -> None:
        self._groups[0][0].tensor[:, :3] = 0

    monkeypatch.setattr(Lasso, "after", draw)
    asked = {"sparsity": 0.0, "lasso": {"epochs": 1, "strength": 1.0}, "zeros": ZEROS | {"share": share}}
    found = run(prepared, settings, taught, tmp_path, controls=False, **asked)
    assert found["steps"]["1"]["zeros"] > 0.001
    assert found["zeros"] == (found["steps"]["1"]["zeros"] if share else 0)


@pytest.mark.slow
def test_bytes_are_those_of_channels_whatever_is_zero(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    for steps in (1, 3):
        asked = {"of": "bytes", "sparsity": 0.5, "zeros": ZEROS, "steps": steps, "between": 0, "controls": False}
        found = run(prepared, settings, taught, tmp_path / str(steps), **asked)
        assert found["steps"][str(steps)]["removed"] == pytest.approx(0.5, abs=0.02)
        assert found["parameters_removed"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_a_pattern_is_one_also_after_several_cuts(
    prepared: Path, settings: params.Params, taught: Path, tmp_path: Path
) -> None:
    pattern = {"name": "pattern", "keep": 2, "of": 4, "importance": {"name": "magnitude"}}
    asked = {"zeros": pattern, "steps": 3, "between": 1, "round_to": 4, "sparsity": 0.4, "controls": False}
    found = run(prepared, settings, taught, tmp_path, **asked)
    assert [cut["zeros"] for cut in found["steps"].values()][:2] == [0, 0]
    for name, value in artifact.read_weights(tmp_path / "pruned").items():
        if value.ndim > 1 and value.shape[1] % 4 == 0:
            groups = (value != 0).movedim(1, -1).reshape(-1, 4).sum(1)
            assert set(groups.tolist()) == {2}, name
