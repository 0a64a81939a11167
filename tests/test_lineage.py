"""Where a file comes from is told by digests: DVC's own, and those that models keep of each other."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightvision import lineage, objects, recorded, reproduce
from lightvision.objects import Objects
from stages.core.running import files
from stages.core.running.errors import Refusal
from tests import made_lineage
from tests.made_project import commit, dvc, enter, output, shell

pytestmark = pytest.mark.slow
SHIPPED = "models/shipped/quantized.onnx"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "project"
    folder.mkdir()
    return made_lineage.build(folder)


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, which a test may spoil."""
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    enter(tmp_path / "project", monkeypatch)
    dvc("remote", "add", "--local", "-q", "-d", "store", str(made.parent / "remote"))
    return tmp_path / "project"


def told(capsys: pytest.CaptureFixture[str], name: str, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert lineage.run(name, json=True, no_mlflow=True) == status
    return json.loads(capsys.readouterr().out)


def recorded_md5(path: str) -> str:
    """As DVC itself wrote it."""
    lines = Path("dvc.lock").read_text().splitlines()
    at = max(number for number, line in enumerate(lines) if line.strip() == f"- path: {path}")
    return lines[at + 2].split()[1]


def test_digests_are_those_of_dvc(project: Path) -> None:
    assert objects.of_path(Path("models/shipped")) == recorded_md5("models/shipped")
    assert objects.of_path(Path("data/manifest.csv")) == recorded_md5("data/manifest.csv")
    assert objects.of_commit("HEAD", "make.py") == recorded_md5("make.py")
    (project / "folder/inner").mkdir(parents=True)
    for name in ("folder/b", "folder/a", "folder/inner/ä"):
        Path(name).write_text(name)
    dvc("add", "-q", "folder")
    known = Path("folder.dvc").read_text().split("md5: ")[1].split()[0]
    assert objects.of_path(Path("folder")) == known
    shell("git", "add", "-f", "folder/a", "folder/b", "folder/inner/ä")
    commit()
    assert objects.of_commit("HEAD", "folder") == known
    assert objects.of_commit("HEAD", "nowhere") is None


def test_file_anywhere_is_known_by_its_content(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deep" / "shipped to a customer.bin"
    file.parent.mkdir()
    shutil.copy(SHIPPED, file)
    found = told(capsys, str(file))
    assert found["made"]["commit"] == output("git", "rev-parse", "HEAD")
    assert found["made"]["dvc.lock"] == files.digest(Path("dvc.lock"))
    assert (found["made"]["path"], found["made"]["stage"]) == (SHIPPED, "export")
    assert found["file"]["sha256"] == files.digest(file)
    names = ["quantized", "pruned", "student", "teacher"]
    assert [model["model"] for model in found["chain"]] == names
    cards = [files.digest(Path(f"models/{name}/model.json")) for name in names]
    assert [model["sha256"] for model in found["chain"]] == cards
    assert set(found["checks"].values()) == {True}
    assert len(found["checks"]) == 3 + 1 + 3
    assert found["data"]["name"] == "digits"
    assert found["data"]["md5"]["data/train"] == recorded_md5("data/train")
    assert found["data"]["manifest sha256"] == files.digest(Path("data/manifest.csv"))
    assert found["data"]["pictures"] == {"train": 3, "val": 1}
    assert (found["parameters"], found["changed"]) == ({"seed": 0, "rate": 4, "export.max_drop": 0.1}, {})
    assert found["gates"]["limits"] == {"max_drop": 0.1}
    assert found["gates"]["measured"]["accuracy"] == 0.25


def test_file_of_an_experiment_that_nobody_applied(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = output("git", "rev-parse", "HEAD")
    for name in ("faster.onnx", "faster"):
        found = told(capsys, name)
        assert (found["made"]["experiment"], found["made"]["baseline"]) == ("faster", head)
        assert found["changed"] == {"rate": [4, 5]}
        assert found["file"]["sha256"] == files.digest(Path("faster.onnx"))


def test_model_is_of_the_commit_that_made_it_first(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commits have this teacher."""
    found = told(capsys, "models/teacher")
    assert found["made"]["commit"] == output("git", "rev-parse", "HEAD^")
    assert [model["model"] for model in found["chain"]] == ["teacher"]
    assert found["parameters"] == {"seed": 0}


def test_commands_that_it_tells_make_the_file_again(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a clone, which has nothing but git and the remote."""
    wanted = files.digest(Path("faster.onnx"))
    for name, sha256 in (("faster.onnx", wanted), ("HEAD^", None)):
        commands = told(capsys, name)["commands"]
        folder = tmp_path / name
        shell("git", "clone", "-q", str(project), str(folder))
        shell("git", "-C", str(folder), "fetch", "-q", "origin", "refs/exps/*:refs/exps/*")
        shell("cp", ".dvc/config.local", str(folder / ".dvc"))
        for number, command in enumerate(commands):
            subprocess.run(command.replace("dvc ", f"{sys.executable} -m dvc ", 1), shell=True, cwd=folder, check=True)  # noqa: S602
            if number == len(commands) - 2:
                assert (folder / SHIPPED).is_file()
        if sha256:
            assert files.digest(folder / SHIPPED) == sha256
        assert output("git", "-C", str(folder), "diff", "--stat", "dvc.lock") == ""


def test_what_nobody_recorded_is_said_to_be_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = Path(SHIPPED).read_bytes()
    Path("other.onnx").write_bytes(content[:-1] + b"x")
    found = told(capsys, "other.onnx", status=1)
    assert (found["recorded"], found["commands"], found["chain"]) == (False, [], [])
    assert lineage.run("other.onnx", json=False, no_mlflow=True) == 1
    assert "nowhere" in capsys.readouterr().out


def test_other_code_and_other_parameters_are_seen(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two commits whose dvc.lock tells of a run with what they do not hold."""
    with Path("make.py").open("a") as stream:
        stream.write("# other\n")
    dvc("repro", "-q", "--force", "export")
    shell("git", "checkout", "-q", "make.py")
    changed = made_lineage.PARAMS.replace("seed: 0\nrate: 2", "seed: 1\nrate: 4")
    files.write_text(Path("params.yaml"), changed)
    commit()
    found = told(capsys, "HEAD", status=1)
    assert found["checks"]["code of the commit is what the stages ran"] is False
    assert found["checks"]["params.yaml of the commit is what the stages were given"] is False
    assert found["made"]["other code"] == "make.py"
    assert found["changed"] == {"seed": [1, 0]}


def test_model_that_is_not_of_its_parent_is_seen(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a stage reads and what it writes into a model's card are two things."""
    text = Path("make.py").read_text()
    Path("make.py").write_text(
        text.replace("{one: card(one) for", "{one: '0' * 64 if one == 'student' else card(one) for")
    )
    dvc("repro", "-q")
    commit()
    found = told(capsys, SHIPPED, status=1)
    assert [what for what, holds in found["checks"].items() if not holds] == ["pruned says it is of student"]


def test_without_cache_and_remote_the_lock_still_tells(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dvc("remote", "remove", "--local", "store")
    shutil.rmtree(".dvc/cache")
    found = told(capsys, "HEAD")
    assert found["checks"]["its content is what dvc.lock records"] is None
    assert [model["sha256"] for model in found["chain"]] == [None] * 4
    assert found["chain"][0]["md5"] == recorded_md5("models/quantized")


def test_lock_that_is_not_committed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_text(Path("params.yaml"), made_lineage.PARAMS.replace("rate: 2", "rate: 9"))
    dvc("repro", "-q")
    assert told(capsys, SHIPPED)["made"]["commit"].startswith("not committed")
    with pytest.raises(Refusal, match="not committed: commit it first"):
        reproduce.run(SHIPPED, None, False)


def test_bad_names(project: Path) -> None:
    Path("empty").mkdir()
    for name, reason in {
        "nosuch": "no experiment and no commit; MLflow: ",
        "lightvision-digits": "mlflow.db is not there",
        "empty": "an empty folder",
    }.items():
        with pytest.raises(Refusal, match=reason):
            lineage.run(name, json=False, no_mlflow=False)


def test_remote_is_asked_for_what_the_cache_lacks(project: Path) -> None:
    shutil.rmtree(".dvc/cache")
    record = recorded.at("HEAD", "models/shipped", "quantized.onnx", Objects())
    assert record
    assert record.file == "quantized.onnx"


def test_what_a_person_reads(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However narrow the terminal; a command can be copied as it stands."""
    monkeypatch.setenv("COLUMNS", "40")
    found = told(capsys, SHIPPED)
    assert lineage.run(SHIPPED, False, True) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert set(found["commands"]) <= set(lines)
    assert f"lightvision reproduce {SHIPPED}" in lines
    pairs = [tuple(line.split(maxsplit=1)) for line in lines]
    assert {("verified", what) for what in found["checks"]} <= set(pairs)
    assert ("commit", found["made"]["commit"]) in pairs
    assert {(model["model"], model["md5"]) for model in found["chain"]} <= {
        (name, value.split("md5 ")[-1].split(",")[0]) for name, value in (pair for pair in pairs if len(pair) == 2)
    }
