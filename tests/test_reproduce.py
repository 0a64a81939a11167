"""A commit is run again in a clone, and what comes out is held against what it recorded."""

import json
import shutil
from pathlib import Path

import pytest

from lightvision import reproduce
from stages.core.running import files
from stages.core.running.errors import Refusal
from tests.made_project import commit, dvc
from tests.test_lineage import SHIPPED, made, project

__all__ = ["made", "project"]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce.hardware, "describe", lambda: dict.fromkeys(reproduce.MACHINE, "unknown"))


@pytest.mark.parametrize("name", ["faster.onnx", "faster", "HEAD"])
def test_what_was_made_is_made_again(
    project: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.run(name, tmp_path / "again", False) == 0
    said = capsys.readouterr().out
    assert "reproduced, to the last byte" in said
    assert "the same type of machine" in said
    expected = Path("faster.onnx") if name != "HEAD" else Path(SHIPPED)
    assert files.digest(tmp_path / "again" / SHIPPED) == files.digest(expected)


CHANCE = "seed = seed + __import__('os').getpid()\n"


def test_what_comes_out_otherwise_is_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stages that depend on chance: a teacher of no seed, a file whose bytes differ; from the cache they are equal."""
    text = Path("make.py").read_text()
    Path("make.py").write_text(text.replace("card = lambda", f"{CHANCE}card = lambda"))
    dvc("repro", "-q")
    commit()
    assert reproduce.run("HEAD", None, False) == 1
    said = capsys.readouterr().out
    assert f"not reproduced: {SHIPPED}" in said
    assert reproduce.run("HEAD", None, True) == 0
    assert "to the last byte" in capsys.readouterr().out
    monkeypatch.setattr(reproduce.hardware, "describe", lambda: dict.fromkeys(reproduce.MACHINE, "other"))
    assert reproduce.run("HEAD", None, False) == 0
    said = capsys.readouterr().out
    assert "another type of machine: cpu unknown -> other" in said
    assert "reproduced within 1 point of accuracy and 1% of bytes" in said


@pytest.mark.parametrize(
    ("name", "before", "after", "same", "near"),
    [
        ("export.a.accuracy", 0.9, 0.9, True, True),
        ("export.a.accuracy", 0.9, 0.899, True, False),
        ("export.a.accuracy", 0.9, 0.891, False, True),
        ("export.a.accuracy", 0.9, 0.889, False, False),
        ("export.a.bytes", 1000, 1010, False, True),
        ("export.a.bytes", 1000, 1011, False, False),
        ("export.a.bytes", 1000, None, False, False),
    ],
)
def test_tolerance(name: str, before: float, after: float | None, same: bool, near: bool) -> None:
    line = reproduce._number(name, before, after, same)
    assert (line.near, line.alike) == (near, before == after)


def test_what_cannot_be_made_again_is_refused(project: Path, tmp_path: Path) -> None:
    Path("unknown.bin").write_text("nobody made this")
    with pytest.raises(Refusal, match=r"recorded by no dvc\.lock"):
        reproduce.run("unknown.bin", None, False)
    with pytest.raises(Refusal, match="is there already"):
        reproduce.run("HEAD", project, False)
    here = f"if Path.cwd() != Path({str(project)!r}): sys.exit('make: no more')\n"
    Path("make.py").write_text(Path("make.py").read_text().replace("import onnx\n", f"import onnx\n{here}"))
    dvc("repro", "-q")
    commit()
    with pytest.raises(Refusal, match=r"does not run again: make: no more"):
        reproduce.run("HEAD", None, False)
    with Path("make.py").open("a") as stream:
        stream.write("# other\n")
    commit()
    with pytest.raises(Refusal, match=r"ran other code than \w+ holds: make\.py"):
        reproduce.run("HEAD", None, False)


def test_data_that_nobody_has_is_refused(project: Path) -> None:
    files.write_text(Path("pictures/one"), "pixels")
    dvc("add", "-q", "pictures")
    commit()
    assert reproduce.run("HEAD", None, False) == 0
    shutil.rmtree("pictures")
    shutil.rmtree(".dvc/cache")
    with pytest.raises(Refusal, match="is neither in DVC's cache nor in a remote"):
        reproduce.run("HEAD", None, False)


def test_numbers_of_metrics_are_compared(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.run("HEAD", None, False) == 0
    found = json.loads(Path("metrics/export.json").read_text())
    said = capsys.readouterr().out
    assert str(found["quantized"]["bytes"]) in said
    assert "export.quantized.accuracy" in said
