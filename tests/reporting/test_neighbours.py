"""Files of sweeps beside this run's own."""

from typing import Any

import pytest
import vl_convert

from lightvision import comparing
from lightvision.comparing import Question
from stages.core.reporting import charts, neighbours
from stages.core.reporting.sweeps import Run, Sweep

TEST = "t" * 64
FILE = "benchmark.files.quantized"


def run(seed: int, test: str, **metrics: float) -> Run:
    told = {f"{FILE}.{name}": value for name, value in metrics.items()} | {f"{FILE}.one_thread.median": 0.5}
    named = {"row": "bits", "seed": seed, "fold": None, "experiment": f"e{seed}", "rev": f"r{seed}", "machine": None}
    return Run(**named, test=test, params={}, metrics=told)


def sweep(*runs: Run) -> Sweep:
    question = Question("accuracy", share=True, margin=0.01, confidence=0.95)
    told: dict[str, Any] = {"title": "", "about": "", "varied": "", "confidence": 0.95, "power": 0.8, "failed": []}
    told |= {"commit": "c", "machine": {}, "date": "2026-01-02", "schema": 1, "kind": "seeds", "runs": list(runs)}
    return Sweep(**told, comparisons=[comparing.compare(question, {"one": {"seed 0": 0.9}}, [])])


def test_files_of_other_runs_are_those_that_the_same_pictures_judged_and_each_once() -> None:
    known = run(3, TEST, accuracy=0.91, bytes=1_500_000)
    others = run(4, "o" * 64, accuracy=0.92, bytes=1_500_000), run(5, TEST, accuracy=0.93), run(6, TEST, bytes=7)
    found = neighbours.points({"one": sweep(known, *others), "two": sweep(known)}, TEST)
    [point] = found
    assert (point["run"], point["file"], point["network"]) == ("bits, seed 3", "quantized.onnx", "quantized")
    assert (point["accuracy"], point["megabytes"]) == pytest.approx((91, 1.5))
    assert not [name for name in point if "milliseconds" in name]


@pytest.mark.parametrize(("cost", "shown"), [("megabytes", True), ("milliseconds", False)])
def test_other_runs_are_faint_and_only_where_they_can_be_compared(cost: str, shown: bool) -> None:
    limits = {"accuracy": 95.0, "accuracy_low": 94.0, "accuracy_high": 96.0}
    own = [
        {"network": "teacher", "file": "teacher.onnx", "run": "this one", "megabytes": 9.0, "milliseconds": 1.0}
        | limits
    ]
    other = {
        "network": "quantized",
        "file": "quantized.onnx",
        "run": "bits, seed 3",
        "accuracy": 60.0,
        "megabytes": 0.5,
    }
    drawn = charts.specification(charts.trade_off(own, cost, cost, [other]))
    faint = [layer for layer in drawn["layer"] if layer["mark"].get("opacity") == charts.FAINT]
    assert [layer["data"]["values"] for layer in faint] == ([[other]] if shown else [])
    heights = next(
        layer["encoding"]["y"]["scale"] for layer in drawn["layer"] if "scale" in layer["encoding"].get("y", {})
    )
    assert (heights["domain"][0] < 60) == shown
    assert vl_convert.vegalite_to_vega(drawn)["marks"]


@pytest.mark.parametrize(("low", "kind"), [(0.1, "log"), (0.0, None), (-0.2, None)])
def test_an_interval_that_reaches_to_zero_has_no_logarithm(low: float, kind: str | None) -> None:
    row = {"network": "teacher", "file": "f", "run": "r", "accuracy": 95.0, "accuracy_low": 94.0, "accuracy_high": 96.0}
    row |= {"millijoules": 0.3, "millijoules_low": low, "millijoules_high": 0.5}
    drawn = charts.specification(charts.trade_off([row], "millijoules", "energy", []))
    across = drawn["layer"][0]["encoding"]["x"]
    assert across.get("scale", {}).get("type") == kind
    assert ("(log)" in across["title"]) == (kind == "log")
