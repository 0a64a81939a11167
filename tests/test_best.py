"""`lightvision best`: every file of every run that can be believed, and the one that a budget leaves."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lightvision import __main__ as command
from lightvision import best, remembered, revisions
from stages.core.running import files
from stages.core.tracking.__main__ import QUIET
from tests import made_project
from tests.made_project import edit, output, pretend_experiment, shell

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """quantized of HEAD: 0.5 MB, 3.75 ms, 89 %; of small: 0.25 MB, 1.875 ms, 84 %; of large: 0.9 MB, 6.75 ms, 97 %."""
    folder = made_project.pretend(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch:
        made_project.enter(folder, patch)
        pretend_experiment("small", "sparsity: 0.5", "sparsity: 0.75")
        pretend_experiment("large", "sparsity: 0.5", "sparsity: 0.1")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    made_project.enter(tmp_path, monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["lightvision", "best", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (("--max-drop", "20"), "small: quantized, 84.0"),
        (("--max-drop", "14.9"), "HEAD: quantized, 89.0"),
        (("--min-accuracy", "90", "--max-mb", "1"), "large: quantized, 97.0"),
        (("--max-mb", "1"), "large: quantized, 97.0"),
        (("--max-mb", "1", "--max-ms", "4"), "HEAD: quantized, 89.0"),
        (("--max-macs", "3e6"), "small: quantized, 84.0"),
        (("--max-drop", "1"), "large: teacher, 99.0"),
        ((), "large: teacher, 99.0"),
    ],
)
@pytest.mark.usefixtures("project")
def test_the_best_of_all_runs(
    words: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = output("git", "rev-parse", "HEAD")[:7]
    assert asked(monkeypatch, "--no-mlflow", *words) == 0
    told = capsys.readouterr().out
    [line] = [line for line in told.splitlines() if line.startswith("best: ")]
    assert line.startswith(f"best: {chosen.replace('HEAD', head)}")
    run = chosen.partition(":")[0]
    how = (
        "dvc get . models/shipped/quantized.onnx --rev " + head
        if run == "HEAD"
        else f"dvc exp pull origin {run} && dvc exp apply {run}"
    )
    assert told.endswith(f"\n  {how}\n")


@pytest.mark.usefixtures("project")
def test_what_is_here_needs_no_pull(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shell(sys.executable, "-m", "dvc", "init", "-q", "-f")
    lock = output(
        "git", "show", f"{output('git', 'for-each-ref', '--format=%(refname)', 'refs/exps/**/large')}:dvc.lock"
    )
    outs = YAML(typ="safe").load(lock)["stages"]["export"]["outs"]
    [md5] = [out["md5"] for out in outs if out["path"] == "models/shipped"]
    files.write_text(Path(".dvc/cache/files/md5", md5[:2], md5[2:]), "what DVC keeps")
    assert asked(monkeypatch, "--no-mlflow", "--max-drop", "1") == 0
    assert capsys.readouterr().out.endswith("\n  dvc exp apply large && dvc checkout models/shipped\n")


@pytest.mark.usefixtures("project")
def test_every_limit_of_every_file_is_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(monkeypatch, "--no-mlflow", "--max-mb", "0.5", "--max-joules", "1")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    found = {row[0]: row[1:] for row in rows if row and row[0]}
    assert len(found) == 6
    assert found["large: quantized"][:3] == ["0.9 MB FAILS", "6.75 ms", "not measured FAILS"]
    assert found["small: quantized"] == [
        "0.25 MB passes",
        "1.88 ms",
        "not measured FAILS",
        "84 %",
        "15 points",
        "84.0\N{NO-BREAK SPACE}% [80.1,\N{NO-BREAK SPACE}87.3]",
    ]


@pytest.mark.usefixtures("project")
def test_where_none_fits_the_nearest_is_named_with_what_stops_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(monkeypatch, "--no-mlflow", "--max-mb", "0.2", "--max-ms", "5") == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "no file keeps to every limit; small: quantized is nearest, and stopped by",
        "  size: at most 0.2 MB, found 0.25 MB: fails",
    ]


@pytest.mark.usefixtures("project")
def test_test_chooses_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same files with other answers on test: what is told changes, what is taken does not."""
    asked(monkeypatch, "--no-mlflow", "--max-mb", "1")
    before = capsys.readouterr().out
    measured = Path("metrics/benchmark.json")
    told = json.loads(measured.read_text())
    told["files"]["quantized"]["accuracy"] = 1.0
    measured.write_text(json.dumps(told))
    monkeypatch.setattr(revisions, "_objection", lambda *_: "")
    asked(monkeypatch, "--no-mlflow", "--max-mb", "1")
    after = capsys.readouterr().out
    assert "workspace: quantized" in after
    assert "100.0\N{NO-BREAK SPACE}%" in after
    assert before.splitlines()[-2:] == after.splitlines()[-2:]
    assert before.splitlines()[-2].startswith("best: large: quantized")


@pytest.mark.usefixtures("project")
def test_metrics_that_are_not_their_runs_own_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An experiment that stopped half-way, and a params.yaml that was edited but not run."""
    before = Path("metrics/benchmark.json").read_text()
    pretend_experiment("honest", "sparsity: 0.5", "sparsity: 0.6")
    edit("sparsity: 0.5", "sparsity: 0.95")
    made_project.repro()
    Path("metrics/benchmark.json").write_text(before)
    baseline = output("git", "rev-parse", "HEAD")
    made_project.commit()
    made_project.shell("git", "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/half-way", "HEAD")
    made_project.shell("git", "reset", "-q", "--hard", baseline)
    made_project.repro()
    edit("sparsity: 0.5", "sparsity: 0.8")
    assert asked(monkeypatch, "--no-mlflow", "--max-drop", "99") == 0
    told = capsys.readouterr().out
    assert "metrics/benchmark.json is not what dvc.lock says that benchmark wrote" in told
    assert ": half-way\n" in told
    [line] = [line for line in told.splitlines() if line.startswith("left out, metrics/export.json")]
    assert line.endswith("makes it anew: workspace")
    assert "honest: quantized" in told
    assert "half-way: quantized" not in told


@pytest.mark.usefixtures("project")
def test_what_cannot_be_ranked_together_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(monkeypatch, "--no-mlflow", "--max-mb", "1")
    told = capsys.readouterr().out
    assert "machines" not in told
    assert "val pictures" not in told
    pretend_experiment("reseeded", "\nseed: 0", "\nseed: 1")
    with monkeypatch.context() as patch:
        patch.setattr(made_project, "MACHINE", {"cpu": "Other", "cores": 8, "onnxruntime": "1"})
        pretend_experiment("elsewhere", "sparsity: 0.5", "sparsity: 0.2")
    head = output("git", "rev-parse", "HEAD")[:7]
    asked(monkeypatch, "--no-mlflow", "--max-mb", "1")
    told = capsys.readouterr().out
    assert "milliseconds of 2 machines" in told
    assert "  Other, 8 cores, ONNX Runtime 1: elsewhere, workspace\n" in told
    assert "val pictures may be others" in told
    assert "  alike: reseeded\n" in told
    assert f"  alike: elsewhere, large, small, {head}, workspace\n" in told


@pytest.mark.usefixtures("project")
def test_experiments_of_one_commit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first = output("git", "rev-parse", "HEAD")
    edit("sparsity: 0.5", "sparsity: 0.55")
    made_project.repro()
    made_project.commit()
    pretend_experiment("later", "sparsity: 0.55", "sparsity: 0.65")
    assert asked(monkeypatch, "--no-mlflow", "--max-mb", "5", "--rev", first) == 0
    assert "later: quantized" not in capsys.readouterr().out
    assert asked(monkeypatch, "--no-mlflow", "--max-mb", "5", "--rev", "HEAD") == 0
    told = capsys.readouterr().out
    assert "later: quantized" in told
    assert "small: quantized" not in told
    assert "git knows no commit nowhere here" in str(asked(monkeypatch, "--no-mlflow", "--rev", "nowhere"))


@pytest.mark.usefixtures("project")
def test_without_mlflow_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(monkeypatch, "--max-mb", "1") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("MLflow: ")
    assert told[0].endswith("mlflow.db is not there, so there are no runs of it; DVC's experiments are looked at alone")
    assert not Path("mlflow.db").exists()


def test_accuracy_is_per_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, "--min-accuracy", "0.98") == "lightvision: --min-accuracy is per cent: 98, not 0.98"
    assert "accuracy: Input should be less than or equal to 1" in str(asked(monkeypatch, "--min-accuracy", "101"))


# ------------------------------------------------------------------------------------------------------- MLflow


of_mlflow = pytest.mark.filterwarnings(
    "ignore::sqlalchemy.exc.SADeprecationWarning",  # in mlflow's store
    "ignore:.*Any type hint is inferred:UserWarning",  # at the import of mlflow.pyfunc
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run by DVC and told to MLflow by the true forwarder: what is committed, and what is not any more (0.3 MB)."""
    folder = made_project.build(tmp_path_factory.mktemp("told"))
    with pytest.MonkeyPatch.context() as patch:
        made_project.enter(folder, patch)
        for name, value in QUIET.items():
            patch.setenv(name, value)
        patch.setenv("LIGHTVISION_TRACKING", "on")
        made_project.dvc("repro", "-q", "--force")
        made_project.commit()
        edit("sparsity: 0.5", "sparsity: 0.7")
        made_project.dvc("repro", "-q")
        forwarded()
        patch.setenv("LIGHTVISION_TRACKING", "off")
        made_project.shell("git", "checkout", "-q", ".")
        made_project.dvc("checkout", "-q")
    return folder


def forwarded() -> None:
    """Until the forwarder that stages started has sent everything."""
    end = time.monotonic() + 120
    while list(Path(".lightvision/runs").iterdir()):
        assert time.monotonic() < end
        subprocess.run([sys.executable, "-m", "stages.core.tracking"], capture_output=True, check=True)
        time.sleep(0.5)


@of_mlflow
def test_what_only_mlflow_remembers_is_found_and_can_be_had(
    told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What DVC has too is one run."""
    made_project.enter(told, monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")
    assert asked(monkeypatch, "--max-mb", "0.4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "4 files, against 1 limit" in lines[0]
    [best_line, how] = lines[-2:]
    assert best_line.startswith("best: pipeline-")
    assert "quantized, 85.0" in best_line
    words = how.split()
    assert words[1:4] == ["mlflow", "artifacts", "download"]
    place = subprocess.run(
        [sys.executable, "-m", "mlflow", *words[2:]],
        env=os.environ | {words[0].partition("=")[0]: words[0].partition("=")[2]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(place.stdout.strip().splitlines()[-1]).read_text() == "quantized 0.7 0"


@of_mlflow
def test_a_run_of_mlflow_has_the_parameters_and_metrics_of_its_stages(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_project.enter(told, monkeypatch)
    runs = remembered.every(None)
    assert sorted(run.params["prune.sparsity"] for run in runs) == [0.5, 0.7]
    [same] = [run for run in runs if run.params["prune.sparsity"] == 0.5]
    here = revisions.of_workspace()
    assert same.metrics == here.metrics
    assert same.pictures == here.pictures
    shared = here.params.keys() & same.params.keys()
    assert len(shared) > 50
    assert {name: same.params[name] for name in shared} == {name: here.params[name] for name in shared}


@of_mlflow
@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("http://127.0.0.1:9", "does not answer"),
        ("sqlite:///nowhere.db", "nowhere.db is not there"),
        ("", "has no experiment other"),
    ],
)
def test_an_mlflow_that_says_nothing_is_one_line(
    where: str, reason: str, told: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_project.enter(told, monkeypatch)
    if not where:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    assert best.run(None, where or None, no_mlflow=False, max_mb=5) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "MLflow" in line]
    assert reason in line
    assert line.endswith("DVC's experiments are looked at alone")
    assert not Path("nowhere.db").exists()
