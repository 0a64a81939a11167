"""Every layer loses what the scan says it can bear."""

import csv
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from torch import nn

from stages.core import params
from stages.core.networks import widths
from stages.core.pruning import cutting, sensitivity
from stages.core.pruning.sensitivity import Tried
from tests import test_pruning as pruning


def tried(**losses: list[float]) -> list[Tried]:
    return [
        Tried(layer, share, 0.5, loss)
        for layer, its in losses.items()
        for share, loss in zip((0.0, 0.25, 0.5, 0.75), its, strict=True)
    ]


FOUND = tried(hard=[1.0, 3.0, 5.0, 7.0], soft=[1.0, 1.0, 1.5, 2.0])


def test_all_layers_cost_the_same() -> None:
    """At any level the loss, read off each layer's own curve, has risen equally; or a layer is at its end."""
    levels = [level / 20 for level in range(21)]
    for level in levels:
        shares = sensitivity.shares(FOUND, level)
        hard, soft = 8 * shares["hard"], max(0.0, 2 * (shares["soft"] - 0.25))
        assert soft == pytest.approx(min(hard, 1.0), abs=1e-6) or shares["soft"] == 0.75
        assert shares["soft"] >= shares["hard"]
    ends = [sensitivity.shares(FOUND, level) for level in (0.0, 1.0)]
    assert ends[1] == {"hard": 0.75, "soft": 0.75}
    assert ends[0]["hard"] == pytest.approx(0.0, abs=1e-9)


def test_more_is_never_less() -> None:
    found = [list(sensitivity.shares(FOUND, level / 50).values()) for level in range(51)]
    for fewer, more in pairwise(found):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))


def test_a_loss_that_falls_again_is_luck() -> None:
    lucky = tried(one=[1.0, 4.0, 2.0, 5.0], two=[1.0, 4.0, 4.0, 5.0])
    for level in (0.1, 0.5, 0.9):
        assert len(set(sensitivity.shares(lucky, level).values())) == 1


def test_a_scan_tries_each_layer_alone() -> None:
    asked = []

    def cut(shares: Mapping[str, float]) -> nn.Module:
        asked.append(dict(shares))
        return nn.Identity()

    found = sensitivity.scan(["a", "b"], [0.3, 0.6], cut, lambda _: {"val_accuracy": 0.5, "val_loss": len(asked)})
    assert asked == [{}, {"a": 0.3}, {"a": 0.6}, {"b": 0.3}, {"b": 0.6}]
    assert [(one.layer, one.share, one.val_loss) for one in found] == [
        ("a", 0.0, 1),
        ("a", 0.3, 2),
        ("a", 0.6, 3),
        ("b", 0.0, 1),
        ("b", 0.3, 4),
        ("b", 0.6, 5),
    ]


def test_the_table(tmp_path: Path) -> None:
    sensitivity.write(tmp_path / "table.csv", FOUND)
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [(row["layer"], float(row["share"]), float(row["val_loss"])) for row in rows] == [
        (one.layer, one.share, one.val_loss) for one in FOUND
    ]
    sensitivity.write(tmp_path / "empty.csv", [])
    assert (tmp_path / "empty.csv").read_text().strip() == "layer,share,val_accuracy,val_loss"


@pytest.mark.slow
def test_a_cut_by_layer_is_of_those_layers_alone(settings: params.Params) -> None:
    """And a layer that bears everything loses more than one that bears nothing, to the same share in all."""
    dense = pruning.alive(pruning.NETWORKS[0])
    wanted = settings.prune.model_copy(
        update={"ranking": "sensitivity", "round_to": 1, "sparsity": 0.3, "scan": (0.5,)}
    )
    plan = cutting.plan(pruning.model(dense), dense, wanted, 0)
    before = widths.outputs(dense)
    after = widths.outputs(cutting.cut(dense, {"blocks.3.conv1": 0.5}, plan, {}))
    assert {name for name in before if before[name] != after[name]} == {"blocks.3.conv1"}
    assert after["blocks.3.conv1"] == before["blocks.3.conv1"] // 2
    assert widths.outputs(cutting.cut(dense, {}, plan, {})) == before

    def judge(network: nn.Module) -> dict[str, float]:
        cut = widths.outputs(network)
        return {"val_accuracy": 0.0, "val_loss": 1e6 * (before["blocks.5.conv1"] - cut["blocks.5.conv1"])}

    plan = cutting.scan(dense, plan, {}, judge)
    assert [one.layer for one in plan.tried] == sorted((one.layer for one in plan.tried), key=list(before).index)
    narrow = cutting.shrink(dense, 0.3, plan, {})
    left = widths.outputs(narrow)
    assert plan.goal(narrow) == pytest.approx(0.3, abs=0.02)
    assert left["blocks.5.conv1"] >= before["blocks.5.conv1"] - 1
    assert left["blocks.3.conv1"] < before["blocks.3.conv1"]
