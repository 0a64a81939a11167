"""What the page tells of fewer bits is what was measured; what is absent is not shown, and one seed claims nothing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from stages.core import params
from stages.core.reporting import findings, quantization
from stages.core.running import files, sources
from stages.core.running.errors import Refusal
from tests.reporting.numbers import LESSON, MACHINE, METHOD, OPERATORS, QUANTIZED
from tests.reporting.reader import Page, share
from tests.reporting.world import Build, World, meet_parents

pytestmark = pytest.mark.slow

SPACE = "\N{NO-BREAK SPACE}"
SEEDS = {
    "4": {"quantized": 0.96, "float": 0.97, "rounded": 0.95},
    "5": {"quantized": 0.98, "float": 0.98, "rounded": 0.94},
}
AGAINST = {
    "float": {"gain": -0.005, "low": -0.0123, "high": -0.0041, "verdict": "hurts"},
    "rounded": {"gain": 0.025, "low": 0.0111, "high": 0.0389, "verdict": "helps"},
}
LEARNT = {"recovery": LESSON, "seeds": SEEDS, "against": AGAINST, "budget": 7, "confidence": 0.9}
ONE_SEED = LEARNT | {
    "seeds": {"0": {"quantized": 0.871, "rounded": 0.654}},
    "against": {"rounded": {"gain": 0.217, "low": None, "high": None, "verdict": "not shown"}},
}
WAYS = [
    {"range": METHOD["range"], "equalize_iterations": 20, "correct": "bias", "zero_points": True},
    {"range": {"name": "mse"}, "equalize_iterations": 0, "correct": "nothing", "zero_points": False},
]
CHOICES = [
    {"layer": "first", "bits": 8, "bytes": 1234, "val_loss": 0.1, "val_accuracy": 0.91},
    {"layer": "first", "bits": "ternary", "bytes": 308, "val_loss": 0.5, "val_accuracy": 0.71},
    {"layer": "last", "bits": 8, "bytes": 4321, "val_loss": 0.2, "val_accuracy": 0.92},
    {"layer": "last", "bits": "ternary", "bytes": 1080, "val_loss": 0.3, "val_accuracy": 0.62},
]


def section(page: Page) -> str:
    """As a person reads it, without the others."""
    return page.text.replace(SPACE, " ").rpartition("Quantization and the gate")[2].partition("Worst class")[0]


def rows(page: Page, label: str) -> list[list[str]]:
    return [row[1:] for row in page.rows if row and row[0] == label]


def gate(page: Page, label: str) -> list[list[str]]:
    """What the gate says of a file, and what it holds."""
    names = ("Parity gate", "What the files hold")
    return [row[1:] for name in names for row in page.tables[name] if row[0] == label]


def written(root: Path, **told: Any) -> World:
    world = World(root)
    world.write("quantize", **QUANTIZED | told)
    return world


@pytest.mark.parametrize("learnt", [{}, LEARNT])
def test_accuracy_is_told_before_calibrated_and_learnt(learnt: dict[str, Any], tmp_path: Path, build: Build) -> None:
    page = build(written(tmp_path, val_accuracy_calibrated=0.432, **learnt))
    assert rows(page, "In floating point") == [[share(0.874), ""]]
    assert rows(page, "Calibrated") == [[share(0.432), "−44.2"]]
    assert rows(page, "Learnt on") == ([[share(0.871), "−0.3"]] if learnt else [])


def test_several_seeds_are_judged_against_both_controls(tmp_path: Path, build: Build) -> None:
    page = build(written(tmp_path, **LEARNT))
    seen = section(page)
    assert (
        "Hurts, against floating point after as many epochs 2 seeds: quantized 97.0 %, floating point 97.5 %: −0.5 "
        "points in the mean, paired t interval at 90 % [−1.2, −0.4]. Fewer bits cost accuracy that the same epochs"
    ) in seen
    assert (
        "Helps, against floating point after as many epochs, and calibration at last 2 seeds: quantized 97.0 %, "
        "rounded at last 94.5 %: +2.5 points in the mean, paired t interval at 90 % [+1.1, +3.9]. Learning with the"
    ) in seen
    assert rows(page, "Seed 4") == [[share(0.96), share(0.97), "−1.0", share(0.95), "+1.0"]]
    assert rows(page, "Seed 5") == [[share(0.98), share(0.98), "0.0", share(0.94), "+4.0"]]
    assert rows(page, "Mean") == [[share(0.97), share(0.975), "−0.5", share(0.945), "+2.5"]]


def test_one_seed_claims_nothing(tmp_path: Path, build: Build) -> None:
    seen = section(build(written(tmp_path, **ONE_SEED)))
    assert "One seed: quantized 87.1 %, rounded at last 65.4 %: +21.7 points. How much of that another seed" in seen
    assert not any(claim in seen for claim in quantization.CLAIMS.values())
    assert "Each seed" not in seen


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"against": {}}, "who learnt beside"),
        ({"seeds": SEEDS | {"6": {"quantized": 0.9, "float": 0.9}}}, "who learnt beside"),
        ({"seeds": {}, "against": {}}, "whether there was a lesson"),
        ({"seeds": {}}, "whether there was a lesson"),
        ({"seeds": {}, "recovery": None, "budget": 0}, "whether there was a lesson"),
        ({"recovery": None}, "whether there was a lesson"),
        ({"budget": 0}, "whether there was a lesson"),
    ],
)
def test_metrics_that_disagree_on_who_learnt_stop_the_report(
    change: dict[str, Any], told: str, tmp_path: Path, build: Build
) -> None:
    world = written(tmp_path, **LEARNT | change)
    with pytest.raises(Refusal, match=rf"quantize\.json: .* disagree {told}.*; `dvc repro`"):
        build(world)


def test_layers_are_told_with_their_bits_levels_zeros_and_errors(tmp_path: Path, build: Build) -> None:
    layers = {
        "first": {"bits": 8, "weights": 4321, "levels": 99, "zeros": 0.0, "error": None},
        "last": {
            "bits": "ternary",
            "weights": 77,
            "levels": 3,
            "zeros": 0.25,
            "error": {"nearest": 0.5, "chosen": 0.4},
        },
    }
    page = build(written(tmp_path, layers=layers, zeros=0.21, zeros_before=0.17))
    assert rows(page, "first") == [["8", "4,321", "99", "", "", ""]]
    assert rows(page, "last") == [["ternary", "77", "3", share(0.25), share(0.5), share(0.4)]]
    assert "21.0 % of the weights are zeros, 17.0 % were so before" in section(page)


def test_what_flows_is_told_and_listed_where_it_differs(page: Page, tmp_path: Path, build: Build) -> None:
    assert "What flows between layers has 7 bits at 2 places." in section(page)
    assert not rows(page, "relu")
    flows = {"relu.act_quant": 4, "x_quant.act_quant": 8, "add_quant.act_quant": 4}
    other = build(written(tmp_path, flows=flows))
    assert "What flows between layers has 8 bits at 1 place and 4 bits at 2 places." in section(other)
    assert [rows(other, name) for name in ("relu", "x_quant", "add_quant")] == [[["4"]], [["8"]], [["4"]]]


@pytest.mark.slow
def test_choices_are_a_table_and_a_heat_map(tmp_path: Path) -> None:
    """The least loss is pale, the highest deepest; each layer has one mark, at what it was given."""
    layers = QUANTIZED["layers"] | {"last": QUANTIZED["layers"]["last"] | {"bits": "ternary"}}
    world = written(tmp_path, choices=CHOICES, layers=layers)
    page = Page(world.build(params.load(sources.ROOT / "params.yaml")))
    assert ["Layer", "8 bits", "ternary", "Given"] in page.rows
    [_, first] = rows(page, "first")
    assert first == [
        f"{share(0.91)} loss 0.1000 1,234{SPACE}B",
        f"{share(0.71)} loss 0.5000 308{SPACE}B",
        "8 bits",
    ]
    [_, last] = rows(page, "last")
    assert last[2] == "ternary"
    drawn = json.loads(page.scripts[1])
    cells = drawn["choices"]["data"]["values"]
    assert [one["depth"] for one in cells] == pytest.approx([0, 0.9, 0.45, 0.9 * math.sqrt(0.5)])
    assert [one["given"] for one in cells] == [True, False, False, True]
    bars = drawn["codes"]["data"]["values"]
    assert [(one["layer"], one["amount"], one["text"]) for one in bars] == [
        ("first", 433, "8 bits"),
        ("last", 308.5, "ternary"),
    ]
    for name in ("choices", "codes"):
        assert vl_convert.vegalite_to_vega(drawn[name])["marks"], name


def test_ways_that_were_tried_are_told_and_the_one_of_the_network_is_marked(tmp_path: Path, build: Build) -> None:
    """Whatever the metrics suggest, the network's own card tells which it was."""
    tried = [{"way": way, "val_accuracy": 0.9 - at / 10, "val_loss": 0.1 + at} for at, way in enumerate(WAYS)]
    world = written(tmp_path, tried=tried)
    first = "range percentile 99.9, channels equalised 20 times, biases corrected"
    assert rows(build(world), first) == [[share(0.9), "0.1000", "taken"]]
    card = world.root / "models/quantized/model.json"
    files.write_json(card, files.read_json(card) | {"quantization": METHOD | WAYS[1]})
    page = build(world)
    assert rows(page, first) == [[share(0.9), "0.1000", ""]]
    assert rows(page, "range mse, no zero points") == [[share(0.8), "1.1000", "taken"]]


def test_the_scan_begins_with_the_worst_place(tmp_path: Path, build: Build) -> None:
    page = build(written(tmp_path, alone={"first": 0.874, "relu.act_quant": 0.3, "last": 0.8}))
    told = [row for row in page.rows if len(row) == 4 and row[1] in ("weights", "what flows")]
    assert told == [
        ["relu", "what flows", share(0.3), "−57.4"],
        ["last", "weights", share(0.8), "−7.4"],
        ["first", "weights", share(0.874), "0.0"],
    ]


def test_what_is_absent_has_no_place(page: Page) -> None:
    absent = ("Learnt on", "same epochs", "Each seed", "Ways to", "bears", "is lost", "zeros,", "Recovery", "stay in")
    assert not [word for word in absent if word in section(page)]
    assert "choices" not in json.loads(page.scripts[1])
    assert ["Layer", "Bits", "Weights", "Levels in a channel, at most"] in page.rows


def test_the_gate_tells_its_interval_and_the_bytes_above_the_ideal(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    for key, value in {"bytes": 1100, "ideal_bytes": 1000, "tensor_bytes": 777, "levels": 16}.items():
        world.change("export", f"quantized.{key}", value)
    world.change("benchmark", "files.quantized.bytes", 1100)
    world.change("export", "pruned.tensor_bytes", 1000)
    page = build(world)
    parity, contents = gate(page, "quantized.onnx")
    assert parity == [
        share(0.994),
        f"−0.4 [−0.9,{SPACE}+0.8]",
        f"2.5{SPACE}·{SPACE}10⁻⁶",
        share(1),
        share(1),
        "not passed",  # 1.1 times the ideal bytes
    ]
    assert contents == ["1,100", "1,000", share(0.1), "777", "4 of 18", f"0.250{SPACE}ms [0.225,{SPACE}0.275]"]
    assert gate(page, "pruned.onnx")[0][-1] == "passed"
    seen = section(page)
    assert "at most 16 different ones in a channel; unpacked, its numbers take 77.7 %" in seen


@pytest.mark.parametrize(
    ("key", "value"), [("agreement", 0.97), ("accuracy_drop", 0.02), ("accuracy", 0.96), ("ideal_bytes", 1170)]
)
@pytest.mark.slow
def test_each_limit_of_the_gate_is_judged(key: str, value: float, tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    assert gate(build(world), "quantized.onnx")[0][-1] == "passed"
    world.change("export", f"quantized.{key}", value)
    assert gate(build(world), "quantized.onnx")[0][-1] == "not passed"


def test_steps_are_counted_on_integers_and_in_floating_point(page: Page, tmp_path: Path, build: Build) -> None:
    assert rows(page, "Products") == [["18 QLinearConv 16 QGemm 2", "1 Conv 1"]]
    assert rows(page, "Additions") == [["6 QLinearAdd 6", "0"]]
    assert rows(page, "Pooling") == [["1 QLinearGlobalAveragePool 1", "0"]]
    assert rows(page, "Others") == [["3 Flatten 3", "5 Mul 5"]]
    seen = section(page)
    assert (
        "The first and the last product run on integers. 4 conversions between integers and floating point stand"
        in seen
    )
    assert "among the products (DequantizeLinear 4); at the ends, pictures and logits need 9 steps." in seen
    world = World(tmp_path)
    found = OPERATORS | {"last_is_integer": False, "conversions": {}}
    found["floating"] = found["floating"] | {"others": {}}
    found["integer"] = found["integer"] | {"others": {}}
    world.change("export", "quantized.operators", found)
    other = build(world)
    assert "first product runs on integers, the last one in floating point. 0 conversions between" in section(other)
    assert not rows(other, "Others")


@pytest.mark.parametrize(("products", "need"), [("exact", "does not need it: why"), ("saturating", "needs it: why")])
def test_a_portable_file_is_a_row_and_recommended_only_where_the_processor_needs_it(
    products: str, need: str, tmp_path: Path, build: Build
) -> None:
    world = World(tmp_path)
    twin = files.read_json(world.metrics / "export.json")["quantized"] | {
        "saturates": 0,
        "agreement": 0.985,
        "bytes": 1300,
        "ideal_bytes": 1300,
    }
    measured = files.read_json(world.metrics / "benchmark.json")["files"]["quantized"] | {"accuracy": 0.987}
    better = measured | {"bytes": 1300, "one_thread": measured["one_thread"] | {"median": 0.001}}
    assert "on all processors" in section(build(world))
    world.change("export", "quantized.saturates", 3)
    world.change("export", "quantized-portable", twin)
    world.change("benchmark", "files.quantized-portable", better)
    machine = MACHINE | {"integer_products": products, "integer_products_because": "why"}
    world.change("benchmark", "machine", machine)
    page = build(world)
    parity, contents = gate(page, "quantized-portable.onnx")
    assert parity[0] == share(0.985)
    assert parity[-3:] == ["not judged", share(0.987), "passed"]
    assert contents[-1].startswith(f"0.00100{SPACE}ms")
    seen = section(page)
    assert "In 3 layers weights are large enough to saturate" in seen
    assert f"The processor of the benchmark {need}." in seen
    assert ("quantized-portable.onnx: " in page.text.partition("Every step")[0]) == (products == "saturating")
    assert f"integer products {products}: why" in page.text


def test_a_portable_file_that_was_not_measured_stops_the_report(tmp_path: Path, build: Build) -> None:
    world = World(tmp_path)
    world.change("export", "quantized-portable", files.read_json(world.metrics / "export.json")["quantized"])
    with pytest.raises(Refusal, match=r"disagree on quantized-portable\.onnx"):
        build(world)


def test_other_methods_are_told_without_what_only_integers_have(tmp_path: Path, build: Build) -> None:
    world = written(
        tmp_path, method="dynamic_int8", flows={}, float_layers=["a", "b", "c"], val_accuracy_calibrated=0.8
    )
    card = world.root / "models/quantized/model.json"
    files.write_json(card, files.read_json(card) | {"quantization": {"name": "dynamic_int8", "scales": "tensor"}})
    for key in ("operators", "levels"):
        world.change("export", f"quantized.{key}", None)
    meet_parents(world)
    page = build(world)
    seen = section(page)
    assert "2 layers got fewer bits; 3 stay in floating point. Their weights" in seen
    assert rows(page, "Rounded") == [[share(0.8), "−7.4"]]
    absent = ("calibration pictures", "flows", "saturate", "different ones", "On integers", "Calibrated")
    assert not [word for word in absent if word in seen]
    assert "dynamic_int8: linear layers alone, a scale for each tensor" in page.text


AUTO = {"choices": [8, 4, "ternary"], "budget": {"name": "bytes", "at_most": 9000}}


@pytest.mark.parametrize(
    ("change", "wanted", "unwanted"),
    [
        ({}, "weights of 4 bits, activations of 7, first and last layer 8, a scale for each channel", "kept"),
        ({"weights": AUTO}, "weights of 8 / 4 / ternary bits, within 9,000 B", "points"),
        (
            {"weights": AUTO | {"budget": {"name": "drop", "at_most": 0.0125}}},
            "8 / 4 / ternary bits, as few as cost 1.2 points on val",
            " B,",
        ),
        ({"layers": {"a.b": "ternary", "c": 1}, "keep": ["d", "e"]}, "a.b ternary, c 1 bit, kept", "zero points"),
        ({"keep": ["d", "e"]}, "kept in floating point: d and e, a scale", "ternary"),
        ({"rounding": {"name": "gptq", "damping": 0.01}}, "rounding gptq (damping 0.01)", "nearest"),
        ({"zero_points": False, "equalize_iterations": 0}, "biases corrected, no zero points, rounding", "equalised"),
        ({"correct": "moments"}, "means and spreads corrected, rounding", "biases"),
        ({"correct": "nothing"}, "range percentile 99.9, channels equalised 20 times, rounding nearest", "biases"),
    ],
)
def test_what_was_asked_for_is_told(change: dict[str, Any], wanted: str, unwanted: str) -> None:
    said = quantization.method(params.Integer.model_validate(METHOD | change)).replace(SPACE, " ")
    assert said.startswith("integer: ")
    assert wanted in said
    assert unwanted not in said


def test_a_recovery_tells_its_budget_and_its_ladder(settings: params.Params) -> None:
    lesson = {"name": "cross_entropy", "smoothing": 0.0}
    plain = settings.quantize.model_dump(mode="json") | {"recovery": lesson}
    found = findings.Quantized.model_validate(QUANTIZED | LEARNT)
    told = [
        quantization.recovery(params.Quantize.model_validate(plain | change), found)
        for change in ({}, {"ladder": {"weights": [8, 6, "ternary"], "epochs": 2}}, {"recovery": None})
    ]
    assert told[0] == "cross_entropy, at most 7 epochs in all; best epoch 2 of 3"
    assert told[1] == (
        "cross_entropy, at most 7 epochs in all, down from 8 bits, 6 bits and ternary, 2 epochs each; best epoch 2 of 3"
    )
    assert told[2] == ""
