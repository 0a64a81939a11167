"""A stage as a person meets it: one line when something is wrong, a status, and nothing half-written."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.core.running import command, files
from stages.core.running.command import Contract, Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.running.sources import ROOT

DATA = (
    "--train data/train --calibration data/calibration --val data/val --test data/test "
    "--manifest data/manifest.csv --details data/details.json"
)
PREPARE = ["prepare", *DATA.split(), "--metrics", "metrics/prepare.json"]


def stage(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "stages", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LIGHTVISION_TRACKING": "off"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def change(project: Path, before: str, after: str) -> None:
    path = project / "params.yaml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def written(project: Path) -> list[str]:
    found = (path for path in project.rglob("*") if path.is_file() and ".lightvision" not in path.parts)
    return sorted(path.name for path in found if path.name not in {"params.yaml", "dvc.yaml"})


def refused(found: "subprocess.CompletedProcess[str]") -> str:
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1, found.stderr
    return found.stderr


@pytest.mark.slow
def test_a_stage_runs_by_hand(project: Path, pictures: Path) -> None:
    change(project, "{name: digits, path: null}", f"{{name: folder, path: {pictures}}}")
    change(project, "image_size: 16", "image_size: 64")
    found = stage(*PREPARE, cwd=project)
    assert found.returncode == 0, found.stderr
    assert json.loads((project / "metrics/prepare.json").read_text())["pictures"]["train"] == 72
    assert not list(project.rglob("*.partial"))


def test_a_typo_dies_before_anything_heavy_is_imported(project: Path) -> None:
    change(project, "sparsity: 0.5", "sparsty: 0.5")
    assert "prune.sparsty is not a parameter" in refused(stage("prune", cwd=project))
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stages", "prune"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "pydantic" in imported
    assert not imported & {"torch", "numpy", "pandas", "mlflow"}


def test_an_unknown_stage_lists_the_known(project: Path) -> None:
    assert "benchmark, convert, describe, distill, evaluate" in refused(stage("distil", cwd=project))


def test_a_missing_input_names_the_stage_that_makes_it(project: Path) -> None:
    arguments = ["--test", "a", "--shipped", "b", "--metrics", "c", "--rounds", "d", "--file-answers", "e"]
    message = refused(stage("benchmark", *arguments, cwd=project))
    assert message == "benchmark: --test a is not there: `dvc repro benchmark` makes or fetches it first\n"


@pytest.mark.slow
def test_a_corrupt_picture_is_named_and_nothing_is_written(project: Path, pictures: Path) -> None:
    shutil.copytree(pictures, project / "mine")
    (project / "mine/blobs/07.png").write_bytes(b"no picture")
    change(project, "{name: digits, path: null}", "{name: folder, path: mine}")
    message = refused(stage(*PREPARE, cwd=project))
    assert "1 of 120 pictures cannot be read: blobs/07.png (it is no picture of a known kind)" in message
    shutil.rmtree(project / "mine")
    assert written(project) == []


@pytest.mark.slow
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(project: Path, pictures: Path) -> None:
    change(project, "{name: digits, path: null}", f"{{name: folder, path: {pictures}}}")
    code = f"""
import resource, runpy, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv = ["stages", *{PREPARE}]
runpy.run_module("stages", run_name="__main__")
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LIGHTVISION_TRACKING": "off"},
        capture_output=True,
        text=True,
    )
    assert re.fullmatch(r"prepare: File too large: \S+/scratch/pixels\n", refused(found))
    assert written(project) == []


def sleeper(run: Run, first: Output, second: Output) -> None:
    first.write_text("whole")
    second.write_text("half")
    print("here", flush=True)
    time.sleep(30)


@pytest.mark.slow
def test_a_stage_that_is_told_to_stop_leaves_nothing(project: Path) -> None:
    code = """
import sys, types
from stages.core.running import command
from tests import test_command
sys.modules["stages.prune"] = types.SimpleNamespace(main=test_command.sleeper)
sys.argv = ["stages", "prune", "--first", "out/a", "--second", "out/b"]
command.run()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LIGHTVISION_TRACKING": "off"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert written(project) == []
    [journal] = project.glob(".lightvision/runs/*/journal.jsonl")
    assert json.loads(journal.read_text().splitlines()[-1])["status"] == "killed"


def test_the_contract_is_the_signature() -> None:
    def main(run: Run, seed: int, train: Input, model: Output, metrics: Output) -> None: ...

    assert Contract.of(main) == Contract(("train",), ("model", "metrics"), ("seed",))


def test_work_that_was_interrupted_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = Run.open("prune", "k" * 64)
    first.start({"stage": "prune"})
    first.step("curve", 1, {"loss": 1.0})
    with pytest.raises(Refusal, match="another process is doing this very work"):
        Run.open("prune", "k" * 64)
    first.end("killed")
    with (first.folder / "journal.jsonl").open("a") as stream:
        stream.write('{"event": "st')  # a line cut by the death of its writer
    again = Run.open("prune", "k" * 64)
    assert again.folder == first.folder
    again.step("curve", 1, {"loss": 1.0})
    again.step("curve", 2, {"loss": 0.5})
    again.end("finished")
    events = [json.loads(line) for line in (again.folder / "journal.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2]
    assert not again.scratch.exists()
    assert Run.open("prune", "k" * 64).folder != first.folder
    assert Run.open("prune", "j" * 64).folder != first.folder


def test_another_key_for_other_code_settings_or_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.core.running import identity, sources

    (tmp_path / "input").write_text("one")
    inputs = {"train": tmp_path / "input"}
    keys = [identity.key("prune", inputs, {"seed": 0}), identity.key("prune", inputs, {"seed": 1})]
    (tmp_path / "input").write_text("two")
    keys.append(identity.key("prune", inputs, {"seed": 0}))
    monkeypatch.setattr(sources, "digest", lambda module: "other code")
    keys.append(identity.key("prune", inputs, {"seed": 0}))
    assert len(set(keys)) == 4


def test_a_queue_of_experiments_shares_one_home(tmp_path: Path) -> None:
    from stages.core.running import journal

    copy = tmp_path / ".dvc/tmp/exps/standalone/abc"
    copy.mkdir(parents=True)
    assert journal.project_root(copy) == tmp_path.resolve()
    assert journal.project_root(tmp_path) == tmp_path.resolve()


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for name, content in (("old", "1"), ("new", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(content)
    files.publish(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["new.txt"]


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "metrics.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_quick_to_start() -> None:
    """Everything heavy is imported where it is used."""
    heavy = "torch", "pandas", "numpy", "mlflow"
    code = f"import sys, {command.__name__}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
