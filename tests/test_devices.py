"""Which file for which device: what runs there, what is right there, what was measured there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.core import devices, params
from stages.core.choosing import Candidate
from stages.core.devices import KINDS, Advice
from stages.core.running.errors import Refusal

HERE = {"cpu": "this one", "system": "Linux x86_64", "integer_products": "exact"}
SHIPPED = [
    Candidate("teacher", 9_000_000, 50, 4.0, None, 0.99, 0.0),
    Candidate("pruned", 900_000, 7, 1.0, None, 0.985, 0.005),
    Candidate("quantized", 100_000, 7, 0.5, None, 0.98, 0.01),
    Candidate("quantized-portable", 100_000, 7, 0.5, None, 0.98, 0.01),
]
CONVERTED: dict[str, Any] = {
    "machine": {"cpu": "this one"},
    "targets": {
        "onnx_packed": {"made": True, "file": "onnx_packed.onnx", "of": "quantized", "bytes": 100_000}
        | {"accuracy": 0.98, "milliseconds": 0.5},
        "ort_int8": {"made": True, "file": "ort_int8.ort", "of": "quantized", "bytes": 104_000}
        | {"accuracy": 0.98, "milliseconds": 0.4},
        "openvino_int8": {"made": True, "file": "openvino_int8.xml", "of": "quantized", "bytes": 90_000}
        | {"accuracy": 0.98, "milliseconds": 0.3},
        "litert_int8": {"made": True, "file": "litert_int8.tflite", "of": "pruned", "bytes": 250_000}
        | {"accuracy": 0.97, "milliseconds": 0.6},
        "ncnn_float32": {"made": False, "why": "no converter"},
    },
}

NOTHING: dict[str, Any] = {"machine": {"cpu": "this one"}, "targets": {}}


def advised(
    budget: params.Budget, saturates: bool = True, measured: list[devices.Measured] | None = None, converted: Any = None
) -> dict[str, Advice]:
    files = devices.candidates(SHIPPED, converted or CONVERTED, HERE)
    found = devices.advise(files, budget, HERE, saturates, measured or [])
    return dict(zip(KINDS, found, strict=True))


def budget(**limits: float) -> params.Budget:
    return params.limits(limits, "here")


def taken(advice: Advice) -> str:
    assert advice.taken is not None
    return advice.taken.name


def test_a_target_is_weighed_with_what_is_known_of_its_network() -> None:
    files = {file.name: file for file in devices.candidates(SHIPPED, CONVERTED, HERE)}
    assert set(files) == {f"{file.name}.onnx" for file in SHIPPED} | {"ort_int8", "openvino_int8", "litert_int8"}
    assert files["litert_int8"].macs == 7
    assert files["litert_int8"].drop == pytest.approx(0.99 - 0.97)


def test_each_kind_gets_the_smallest_of_what_runs_there() -> None:
    found = advised(budget(drop=0.011))
    assert {name: taken(advice) for name, advice in found.items()} == {
        "x86": "openvino_int8",
        "x86-old": "quantized-portable.onnx",
        "arm": "openvino_int8",
        "phone": "quantized.onnx",
        "browser": "quantized.onnx",
        "integers": "litert_int8",
    }
    assert [advice.keeps for advice in found.values()] == [True] * 5 + [False]
    assert "drop on val against the teacher: at most 1.1 points, found 2 points: fails" in found["integers"].reason


def test_where_sums_saturate_only_what_bears_it_is_told() -> None:
    old = advised(budget(drop=0.011))["x86-old"]
    assert "may saturate there: quantized.onnx, ort_int8 and openvino_int8." in old.reason
    assert taken(advised(budget(drop=0.011), saturates=False)["x86-old"]) == "openvino_int8"


def test_a_kind_for_which_nothing_was_made_says_so() -> None:
    none = advised(budget(drop=0.011), converted=NOTHING)["integers"]
    assert (none.taken, none.keeps) == (None, False)
    assert "convert.targets names none of litert_int8" in none.reason


def test_time_is_judged_only_where_it_was_measured() -> None:
    found = advised(budget(drop=0.011, milliseconds=0.45))
    assert taken(found["x86"]) == "openvino_int8"
    assert any(line.name == "milliseconds" for line in found["x86"].lines)
    assert "its limits of latency are not judged" in found["phone"].reason
    assert not any(line.name == "milliseconds" for line in found["phone"].lines)


def bench(
    folder: Path, name: str, system: str = "Linux aarch64", milliseconds: float = 9.0, size: int = 100_000
) -> None:
    content = {
        "device": name,
        "machine": {"system": system, "integer_products": "exact"},
        "agreement": 1.0,
        "files": {"quantized": {"bytes": size, "one_thread": {"median": milliseconds}}},
    }
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def test_the_slowest_device_of_a_kind_is_held_against_the_budget(tmp_path: Path) -> None:
    bench(tmp_path, "pi4", milliseconds=9.0)
    bench(tmp_path, "pi5", milliseconds=3.0)
    measured = devices.read(tmp_path)
    fits = advised(budget(drop=0.011, milliseconds=10), measured=measured)["arm"]
    assert (taken(fits), fits.keeps) == ("quantized.onnx", True)
    assert "Latency is of pi4 and pi5" in fits.reason
    assert not advised(budget(drop=0.011, milliseconds=8), measured=measured)["arm"].keeps
    assert "not judged" in advised(budget(drop=0.011, milliseconds=8), measured=measured)["phone"].reason


def test_times_of_another_file_count_for_nothing(tmp_path: Path) -> None:
    bench(tmp_path, "pi4", milliseconds=1.0, size=99_999)
    assert not advised(budget(drop=0.011, milliseconds=10), measured=devices.read(tmp_path))["arm"].keeps


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"device": "a", "machine": {}, "files": {}}', '{"files": 1}'])
def test_what_is_no_benchmark_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(Refusal, match=r"odd\.json is no device's benchmark"):
        devices.read(tmp_path)


def test_a_twin_is_taken_only_where_it_is_needed() -> None:
    files = [replace(file, bytes=50_000) if file.name == "quantized-portable" else file for file in SHIPPED]
    found = devices.advise(devices.candidates(files, NOTHING, HERE), budget(drop=0.011), HERE, saturates=True)
    assert taken(found[0]) == "quantized.onnx"
    assert taken(found[1]) == "quantized-portable.onnx"
