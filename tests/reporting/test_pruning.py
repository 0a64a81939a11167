"""What the page tells of pruning is what was measured; what is absent is not shown, and one seed claims nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from stages.core import params
from stages.core.reporting import pruning
from stages.core.running import sources
from stages.core.running.errors import Refusal
from tests.reporting.numbers import LESSON, PRUNED, timing
from tests.reporting.reader import Page, share
from tests.reporting.world import Build, World

pytestmark = pytest.mark.slow

SPACE = "\N{NO-BREAK SPACE}"
SEEDS = {
    "4": {"pruned": 0.96, "uncut": 0.97, "from-scratch": 0.95},
    "5": {"pruned": 0.98, "uncut": 0.98, "from-scratch": 0.94},
}
AGAINST = {
    "uncut": {"gain": -0.005, "low": -0.0123, "high": 0.0041, "verdict": "not shown"},
    "from-scratch": {"gain": 0.025, "low": 0.0111, "high": 0.0389, "verdict": "helps"},
}
ZEROS: dict[str, Any] = {
    "zeros": 0.731,
    "zeros_by_layer": {"conv1": 0.25, "head": 0.0, "extra": 0.75},
    "after": PRUNED["after"] | {"nonzero": 54_321},
}
SCAN = [("conv1", 0.0, 0.9, 0.1), ("conv1", 0.5, 0.3, 0.7), ("head", 0.0, 0.9, 0.1), ("head", 0.25, 0.6, 0.4)]


def section(page: Page) -> str:
    """As a person reads it, without the others."""
    text = page.text.replace(SPACE, " ")
    return text[text.rindex(" are gone") :].partition("Quantization and the gate")[0]


def test_before_and_after_are_the_measured_sizes_and_times(tmp_path: Path, build: Build) -> None:
    """Ratios of the ends of two 95 % intervals hold at 90 % together; those here overlap for all threads."""
    world = World(tmp_path)
    world.change("benchmark", "files.student.one_thread", timing(0.6, low=0.5, high=0.7))
    world.change("benchmark", "files.pruned.one_thread", timing(0.3, low=0.25, high=0.4))
    world.change("benchmark", "files.student.all_threads", timing(0.2, low=0.1, high=0.3))
    world.change("benchmark", "files.pruned.all_threads", timing(0.25, low=0.2, high=0.4))
    page = build(world)
    macs = page.row("Multiply-accumulates for one picture")
    assert macs == ["7,000,000", "3,000,000", f"{share(0.571)} less"]
    [parameters] = [row for row in page.tables["Before and after"] if row[0] == "Parameters"]
    assert parameters[1:] == ["400,321", "200,777", f"{share(0.498)} less"]
    assert page.row("File float32 ONNX") == [f"1.60{SPACE}MB", f"0.80{SPACE}MB", f"{share(0.499)} less"]
    assert page.row("Latency, one thread") == [
        f"0.600{SPACE}ms [0.500,{SPACE}0.700]",
        f"0.300{SPACE}ms [0.250,{SPACE}0.400]",
        f"2.0× faster [1.25,{SPACE}2.80] at 90{SPACE}% or more",
    ]
    assert page.row("Latency, all threads")[-1] == (
        f"1.2× slower [0.25,{SPACE}1.50] at 90{SPACE}% or more no difference is shown"
    )
    assert "zero" not in section(page).lower()


def test_a_network_that_grew_has_more() -> None:
    assert pruning._less(-0.25).text == f"{share(0.25)} more"  # of a file whose mask outweighs its zeros


def test_several_seeds_are_judged_against_both_controls(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    world.write("prune", **PRUNED | {"seeds": SEEDS, "against": AGAINST, "confidence": 0.9})
    page = build(world)
    seen = section(page)
    assert (
        "Not shown, against the uncut student 2 seeds: pruned 97.0 %, uncut 97.5 %: −0.5 points in the mean, "
        "paired t interval at 90 % [−1.2, +0.4]. The cut may cost accuracy, bring some or do nothing."
    ) in seen
    assert (
        "Helps, against the same shape from scratch 2 seeds: pruned 97.0 %, from scratch 94.5 %: +2.5 points in the "
        "mean, paired t interval at 90 % [+1.1, +3.9]. What the student had learnt is worth keeping"
    ) in seen
    assert page.row("Seed 4") == [share(0.96), share(0.97), "−1.0", share(0.95), "+1.0"]
    assert page.row("Seed 5") == [share(0.98), share(0.98), "0.0", share(0.94), "+4.0"]
    assert page.row("Mean") == [share(0.97), share(0.975), "−0.5", share(0.945), "+2.5"]
    assert "Seed 4, which goes on" in seen


def test_one_seed_claims_nothing(page: Page) -> None:
    seen = section(page)
    told = "One seed: pruned 87.6 %, from scratch 65.4 %: +22.2 points. How much of that another seed would change"
    assert f"Not shown, against the same shape from scratch {told} cannot be told from one." in seen
    assert not any(claim in seen for claim in pruning.CLAIMS.values())
    assert "Each seed" not in seen
    assert [row[1:] for row in page.rows if row[0] == "from scratch"] == [[share(0.654), "0.500", "2 of 3"]]


def test_without_controls_there_is_nothing_to_compare(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    alone = {seed: {"pruned": found["pruned"], "uncut": None, "from-scratch": None} for seed, found in SEEDS.items()}
    world.write("prune", **PRUNED | {"controls": None, "seeds": alone, "against": {}})
    page = build(world)
    seen = section(page)
    assert "otherwise" not in seen
    assert "uncut" not in seen
    assert page.row("Seed 5") == [share(0.98)]
    assert page.row("Mean") == [share(0.97)]


@pytest.mark.parametrize(
    "change",
    [
        {"against": {}},
        {"controls": {"uncut": LESSON}},
        {"controls": None},
        {"seeds": SEEDS | {"6": {"pruned": 0.9, "uncut": None, "from-scratch": 0.9}}},
        {"seeds": {"0": {"pruned": None, "uncut": 0.9, "from-scratch": 0.9}}},
    ],
)
def test_a_control_that_only_some_seeds_know_stops_the_report(
    change: dict[str, Any], tmp_path: Path, build: Build
) -> None:
    world = World(tmp_path)
    world.write("prune", **PRUNED | change)
    with pytest.raises(Refusal, match=r"prune\.json: .* disagree who learnt beside the pruned network; `dvc repro`"):
        build(world)


def test_layers_heads_and_cuts_are_shown_with_their_zeros(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    cuts = {str(n): {"removed": 0.2 * n, "zeros": 0.3 * n, "val_accuracy": 0.9 - 0.1 * n} for n in (1, 2)}
    heads = {"attn": {"heads": {"before": 3, "after": 2}, "dimension": {"before": 16, "after": 12}}}
    world.write("prune", **PRUNED | ZEROS | {"steps": cuts, "heads": heads})
    page = build(world)
    assert page.row("conv1") == ["16", "9", share(9 / 16), share(0.25)]
    assert page.row("extra") == ["", "", "", share(0.75)]
    assert page.row("attn") == ["3 → 2", "16 → 12"]
    assert [row[1:] for row in page.rows if row[0] in ("1", "2")] == [
        [share(0.2), share(0.3), share(0.8)],
        [share(0.4), share(0.6), share(0.7)],
    ]
    assert page.row("Parameters that are not zero") == ["", "54,321", ""]
    assert page.row("Zeros of") == ["", share(0.731), ""]


def test_what_is_absent_has_no_place(page: Page, build: Build, world: World) -> None:
    seen = section(page)
    assert not [word for word in ("Heads", "Cut by cut", "alone can lose", "Zeros", "blocks") if word in seen]
    assert page.row("conv1") == ["16", "9", share(9 / 16)]
    assert not {"zeros", "sensitivity"} & json.loads(page.scripts[1]).keys()


@pytest.mark.slow
def test_the_scan_is_a_table_and_a_heat_map(tmp_path: Path) -> None:
    """Layers in network order, nothing where nothing was tried; the deepest colour is the greatest loss."""
    world = World(tmp_path)
    world.write("prune", **PRUNED | ZEROS)
    world.scan(SCAN)
    page = Page(world.build(params.load(sources.ROOT / "params.yaml")))
    [heads] = [row for row in page.rows if row[0] == "Layer" and row[1] == share(0)]
    assert heads == ["Layer", share(0), share(0.25), share(0.5)]
    rows = [row for row in page.rows if any(" loss 0." in cell for cell in row)]
    assert rows == [
        ["conv1", f"{share(0.9)} loss 0.100", "", f"{share(0.3)} loss 0.700"],
        ["head", f"{share(0.9)} loss 0.100", f"{share(0.6)} loss 0.400", ""],
    ]
    drawn = json.loads(page.scripts[1])
    cells = drawn["sensitivity"]["data"]["values"]
    assert [(one["layer"], one["gone"], one["percent"]) for one in cells] == [("conv1", 50, 30), ("head", 25, 60)]
    assert cells[0]["depth"] == pytest.approx(2 * cells[1]["depth"])
    bars = drawn["zeros"]["data"]["values"]
    assert [(one["layer"], one["percent"]) for one in bars] == [("conv1", 25), ("head", 0), ("extra", 75)]
    kept = drawn["channels"]["data"]["values"]
    assert [(one["percent"], one["text"]) for one in kept] == [(56.25, "9 of 16"), (100, "4 of 4")]
    for name in ("sensitivity", "zeros", "channels"):
        assert vl_convert.vegalite_to_vega(drawn[name])["marks"], name


@pytest.mark.slow
def test_a_scan_in_which_nothing_was_lost_is_pale(world: World) -> None:
    world = World(world.root / "flat")
    world.scan([("conv1", 0.0, 0.9, 0.1), ("conv1", 0.5, 0.9, 0.1)])
    page = Page(world.build(params.load(sources.ROOT / "params.yaml")))
    [cell] = json.loads(page.scripts[1])["sensitivity"]["data"]["values"]
    assert cell["depth"] == 0


@pytest.mark.parametrize(
    ("zeros", "told"),
    [
        (
            {"name": "scattered", "share": 0.9, "importance": {"name": "lamp"}, "ranking": "global"},
            "90.0 % zeros, by lamp",
        ),
        ({"name": "pattern", "keep": 2, "of": 4, "importance": {"name": "magnitude"}}, "2 of 4 weights kept, by magn"),
    ],
)
def test_what_was_asked_for_is_told(zeros: dict[str, Any], told: str, settings: params.Params) -> None:
    plain = settings.prune.model_dump(mode="json") | {"blocks": 0, "steps": 3}
    plain["zeros"] = {"name": "scattered", "share": 0, "importance": {"name": "lamp"}, "ranking": "global"}
    said = [pruning.asked(params.Prune.model_validate(one)) for one in (plain, plain | {"zeros": zeros, "blocks": 2})]
    assert said[0].startswith("50.0\N{NO-BREAK SPACE}% of the parameters, importance group_norm")
    assert "3 cuts" in said[0]
    assert "block" not in said[0]
    assert "lamp" not in said[0]
    assert "2 whole blocks" in said[1]
    assert told in said[1].replace(SPACE, " ")
