"""`lightvision recommend`: a file for each kind of device, from what stages wrote."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lightvision import finding, recommend
from lightvision.runs import Run
from stages.core.devices import KINDS
from stages.core.running.errors import Refusal
from stages.core.running.sources import ROOT

FILES = {"teacher": (9_000_000, 0.99, 4.0), "pruned": (900_000, 0.985, 1.0), "quantized": (100_000, 0.98, 0.5)}
MACHINE = {"cpu": "this one", "system": "Linux x86_64", "integer_products": "exact"}
LITERT = {"made": True, "file": "litert_int8.tflite", "of": "pruned", "bytes": 90_000, "accuracy": 0.984}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run remembers; the budget is that of params.yaml: a point at most."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    measured = {
        name: {"bytes": size, "macs": 7, "one_thread": {"median": time}} for name, (size, _, time) in FILES.items()
    }
    found: dict[str, Any] = {
        "export": {name: {"bytes": size, "accuracy": right} for name, (size, right, _) in FILES.items()},
        "benchmark": {"machine": MACHINE, "files": measured},
        "convert": {"machine": MACHINE, "targets": {"litert_int8": LITERT | {"milliseconds": 0.25}}},
    }
    found["export"]["quantized"]["saturates"] = 0
    monkeypatch.setattr(finding, "named", lambda name: Run(name, {}, found, {}, lambda *_: Path(), str))
    return found


def test_every_kind_of_device_is_told_a_file_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend.run(None, "workspace") == 0
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert set(KINDS) <= set(told)
    assert told["phone"].startswith("Of 4 files that run there 4 keep to the budget; this is the smallest.")
    assert "Nothing was timed on such a device" in told["phone"]
    assert "Latency is of the benchmark's machine" in told["x86"]


@pytest.mark.parametrize(("kind", "file"), [("phone", "litert_int8"), ("x86", "quantized.onnx")])
def test_what_is_taken_runs_there(kind: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend.run(kind, "workspace") == 0
    assert file in capsys.readouterr().out


def test_the_status_says_that_no_file_keeps_to_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend.run("phone", "workspace", max_mb=0.01) == 1
    assert "No file that runs there keeps to the budget; this one comes nearest" in capsys.readouterr().out


def test_a_device_that_was_measured_decides(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("metrics/devices")
    folder.mkdir(parents=True)
    times = {"bytes": 100_000, "one_thread": {"median": 30.0}}
    machine = {"system": "Linux aarch64", "integer_products": "exact"}
    told = {"device": "pi", "machine": machine, "agreement": 1.0, "files": {"quantized": times}}
    (folder / "pi.json").write_text(json.dumps(told))
    assert recommend.run("arm", "workspace", max_ms=31) == 0
    assert "Latency is of pi;" in capsys.readouterr().out
    assert recommend.run("arm", "workspace", max_ms=29) == 1


def test_metrics_of_another_run_are_refused(project: dict[str, Any]) -> None:
    project["export"]["pruned"]["bytes"] += 1
    with pytest.raises(Refusal, match="these metrics are not of one run"):
        recommend.run(None, "workspace")
