"""`lightvision check`: a line for each limit, and an exit status that a CI can go by."""

import shutil
import sys
from pathlib import Path

import pytest

from lightvision import __main__ as command
from stages.core.running.sources import ROOT
from tests import made_project

MACHINE = "measured on Made-up, 2 cores, ONNX Runtime 1"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sparsity 0.5 and 30 rounds: quantized has 0.5 MB, 3.75 ms, and 10 points less than the teacher's 99 %."""
    return made_project.pretend(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    made_project.enter(tmp_path, monkeypatch)


def check(monkeypatch: pytest.MonkeyPatch, limits: str, *words: str) -> object:
    Path("limits.yaml").write_text(limits)
    monkeypatch.setattr(sys, "argv", ["lightvision", "check", "--budget", "limits.yaml", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


def test_a_file_within_its_limits_passes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch, "megabytes: 0.5\nmilliseconds: 4\naccuracy: 0.89\n") == 0
    assert capsys.readouterr().out.splitlines() == [
        "size: at most 0.5 MB, found 0.5 MB: passes",
        "latency: at most 4 ms, found 3.75 ms: passes",
        "accuracy on val: at least 89 %, found 89 %: passes",
        f"quantized of workspace, {MACHINE}: limits.yaml keeps to all of it",
    ]


def test_one_limit_missed_is_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch, "drop: 0.09\nmegabytes: 0.5\njoules: 3\n") == 1
    assert capsys.readouterr().out.splitlines() == [
        "size: at most 0.5 MB, found 0.5 MB: passes",
        "energy a picture: at most 3 J, not measurable here: fails",
        "drop on val against the teacher: at most 9 points, found 10 points: fails",
        f"quantized of workspace, {MACHINE}: limits.yaml fails 2 of 3 limits",
    ]


def test_another_file_of_another_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made_project.pretend_experiment("tiny", "sparsity: 0.5", "sparsity: 0.9")
    assert check(monkeypatch, "megabytes: 0.2\n", "tiny") == 0
    assert check(monkeypatch, "megabytes: 0.2\n", "HEAD") == 1
    assert check(monkeypatch, "megabytes: 4\n", "tiny", "--file", "teacher") == 0
    assert "teacher of tiny" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limits", "words", "message"),
    [
        ("megabites: 1\n", (), "megabites is not a parameter; allowed here: megabytes, macs, milliseconds, joules"),
        ("megabytes: .nan\n", (), "megabytes: Input should be a finite number"),
        ("megabytes: 0\n", (), "megabytes: Input should be greater than 0, got 0"),
        ("accuracy: 99\n", (), "accuracy: Input should be less than or equal to 1, got 99"),
        ("megabytes: null\n", (), "limits.yaml limits nothing"),
        ("", (), "limits.yaml limits nothing"),
        ("5\n", (), "limits.yaml holds no limits"),
        ("[", (), "limits.yaml is not YAML"),
        ("drop: 0\n", ("--file", "pruned"), "workspace has no file pruned; it has quantized, teacher"),
        ("drop: 0\n", ("elsewhere",), "'elsewhere' is no experiment (`dvc exp list --all-commits`) and no commit"),
        ("drop: 0\n", ("abc123",), "mlflow.db is not there"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    limits: str, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = check(monkeypatch, limits, *words)
    assert isinstance(told, str)
    assert message in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("path", "before", "after", "message"),
    [
        ("params.yaml", "sparsity: 0.5", "sparsity: 0.6", "does not belong to its params.yaml and dvc.lock"),
        ("metrics/benchmark.json", '"bytes": 500000', '"bytes": 400000', "is not what dvc.lock says that benchmark"),
        ("dvc.lock", "stages:", "stagse:", "does not belong to its params.yaml and dvc.lock"),
    ],
)
def test_metrics_of_something_else_are_refused(
    path: str, before: str, after: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(path).read_text()
    assert before in text
    Path(path).write_text(text.replace(before, after))
    told = str(check(monkeypatch, "megabytes: 5\n"))
    assert message in told
    assert "`dvc repro benchmark`" in told


def test_metrics_that_are_gone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("metrics/export.json").unlink()
    assert "`dvc repro export`" in str(check(monkeypatch, "megabytes: 5\n"))


def test_outside_of_a_project_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("nowhere"))
    assert "this folder has no dvc.yaml" in str(check(monkeypatch, "megabytes: 5\n"))


def test_the_example_is_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch, (ROOT / "docs/examples/edge.yaml").read_text()) == 1
