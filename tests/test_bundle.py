"""`lightvision bundle`: which file goes along, that it goes whole or not at all, and what is told of it."""

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lightvision import __main__ as command
from lightvision import bundle
from lightvision.bundles import winner
from lightvision.runs import SHIPPED
from stages.core import params
from stages.core.predicting.model import load
from tests import made_bundle, made_files


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_bundle.enter(tmp_path, monkeypatch)


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["lightvision", "bundle", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


def test_a_bundle_is_complete_and_tells_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, "rpi") == 0
    with zipfile.ZipFile("lightvision-rpi-quantized-portable.zip") as archive:
        told = json.loads(archive.read("bundle.json"))
        names = set(archive.namelist()) - {"bundle.json"}
        digests = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
        assert archive.getinfo("install.sh").external_attr >> 16 & 0o777 == 0o755
        assert archive.read("README.md").decode().startswith("# quantized-portable on")
        assert b"jinja" not in b"".join(name.encode() for name in names)
    assert {name: facts["sha256"] for name, facts in told["files"].items()} == digests
    assert digests["model.onnx"] == hashlib.sha256(Path(SHIPPED, "quantized-portable.onnx").read_bytes()).hexdigest()
    assert told["model"]["sha256"] == digests["model.onnx"]
    low, high = stats.binomtest(38, 40).proportion_ci(0.95, method="wilson")
    assert told["accuracy"] == {
        "val": pytest.approx({"accuracy": 0.95, "low": low, "high": high, "pictures": 40}),
        "test": {"accuracy": 0.9, "low": 0.8, "high": 0.95, "pictures": 50},
    }


def test_the_same_input_is_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for out in ("one.zip", "folder"):
        assert asked(monkeypatch, "rpi", "--out", out) == 0
    for path in Path("folder").rglob("*"):
        os.utime(path, (1e9, 1e9))
    bundle.pack(Path("folder"), Path("two.zip"))
    assert Path("one.zip").read_bytes() == Path("two.zip").read_bytes()


def test_limits_choose_and_where_none_fits_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(Path().rglob("*"))
    assert asked(monkeypatch, "rpi", "--max-mb", "0.00001") == 1
    assert "no file keeps to every limit" in capsys.readouterr().out
    assert set(Path().rglob("*")) == before
    assert asked(monkeypatch, "rpi", "--min-accuracy", "99", "--out", "folder") == 0
    assert json.loads(Path("folder/bundle.json").read_text())["name"] == "teacher"


def test_nothing_is_overwritten_or_left_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.zip").write_text("mine")
    assert "mine.zip is there already" in str(asked(monkeypatch, "rpi", "--out", "mine.zip"))
    assert Path("mine.zip").read_text() == "mine"
    before = set(Path().rglob("*"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "pack", full)
    assert "No space left" in str(asked(monkeypatch, "rpi"))
    assert set(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"model": None}, "does not tell its model"),
        ({"image_size": None}, "its metadata lacks"),
        ({"classes": json.dumps(["red", "green", "black"])}, "other classes"),
    ],
)
def test_a_file_that_cannot_be_checked_is_refused(
    facts: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_files.write(Path("mine.onnx"), made_bundle.TOLD | facts)
    assert said in str(asked(monkeypatch, "rpi", "--model", "mine.onnx"))
    assert not list(Path().glob("*rpi*"))


def test_of_a_named_file_test_says_nothing_and_val_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a namesake's measurement count."""
    made_files.write(Path("quantized.onnx"), made_bundle.TOLD)
    found = winner.given(Path("quantized.onnx"))
    assert found.accuracy["test"] is None
    assert (found.accuracy["val"] or {})["accuracy"] == 1.0  # labels are what the file answers
    assert winner.given(Path(SHIPPED, "teacher.onnx")).accuracy["test"] is not None


def test_checks_are_of_val_and_what_the_file_answers() -> None:
    found = winner.given(Path(SHIPPED, "quantized.onnx"))
    images = np.load("data/val/images.npy")
    assert all(any((image == one).all() for one in images) for image in found.checks.images)
    alone = [load(found.file).probabilities(image[None])[0] for image in found.checks.images]
    np.testing.assert_allclose(found.checks.probabilities, alone, atol=1e-6)
    assert (found.checks.probabilities.argmax(axis=1) == found.checks.labels).all()


def test_whatever_measured_it_the_portable_twin_leaves_the_house() -> None:
    budget = params.limits(
        {"megabytes": None, "macs": None, "milliseconds": None, "joules": None, "accuracy": None, "drop": 0.1}, "test"
    )
    found = winner.chosen(budget)
    assert isinstance(found, winner.Winner)
    assert found.name == "quantized-portable"
    assert found.accuracy["val"] is not None
