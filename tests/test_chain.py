"""The whole DAG as a person runs it, on small networks: what runs, what does not again, and what each stage opens."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from ruamel.yaml import YAML

from stages.core import params
from stages.core.running import pipeline
from stages.core.running.sources import ROOT

pytestmark = pytest.mark.slow

RUNNING = re.compile(r"Running stage '(\w+)'")
EPOCHS = 40  # of the teacher: more than any machine finishes before a test has seen the first and killed it
GATHERED = ("metrics/studies/", "metrics/sweeps/", "metrics/devices/")  # which no stage writes
AFTER_PRUNE = ["prune", "quantize", "evaluate", "export", "benchmark", "convert", "report"]

WATCHER = """
import os, sys

ABSENT = {"dvc", "prefect", "mlflow"}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if sys.orig_argv[1:3] == ["-m", "stages"]:
    log = open(os.environ["OPENED"], "a", buffering=1)
    sys.meta_path.insert(0, Absent())

    def note(event, arguments):
        # a bare name at the level of the system, without a mode, is an entry of a folder that is being removed
        if event == "open" and isinstance(arguments[0], str) and (arguments[1] or os.sep in arguments[0]):
            log.write(f"{sys.orig_argv[3]}\\t{os.path.abspath(os.fsdecode(arguments[0]))}\\n")

    sys.addaudithook(note)
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("opened") / "opened.tsv"


@pytest.fixture(scope="module", autouse=True)
def environment(opened: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stages find neither DVC, Prefect nor MLflow, and tell which files they open."""
    (opened.parent / "sitecustomize.py").write_text(WATCHER)
    os.environ |= {
        "OPENED": str(opened),
        "PYTHONPATH": str(opened.parent),
        "LIGHTVISION_TRACKING": "off",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "GIT_AUTHOR_NAME": "tests",
        "GIT_AUTHOR_EMAIL": "tests@localhost",
        "GIT_COMMITTER_NAME": "tests",
        "GIT_COMMITTER_EMAIL": "tests@localhost",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def clone(folder: Path, settings: params.Params) -> Path:
    """The project's tracked files, with small networks, in a repository of its own and with no cache."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file() and (name.startswith(GATHERED) or not name.startswith(("metrics/", "dvc.lock"))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    small = settings.model_dump(mode="json")
    small["prepare"]["source"] = {"name": "digits", "path": None}
    small["train_teacher"]["training"] |= {"epochs": EPOCHS, "patience": EPOCHS}
    YAML().dump(small, folder / "params.yaml")
    for command in ("init -q", "add -A", "commit -qm clone"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def project(settings: params.Params, environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clone(tmp_path_factory.mktemp("project"), settings)
    assert sorted(ran(folder, "repro")) == sorted(pipeline.read(ROOT / "dvc.yaml"))
    return folder


def call(folder: Path, *command: str) -> str:
    found = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert found.returncode == 0, found.stdout
    return found.stdout


def ran(folder: Path, *command: str) -> list[str]:
    return RUNNING.findall(call(folder, "dvc", *command))


def wait_for_the_end(folder: Path) -> None:
    """Of the stage, which outlives its parent by a moment: then its lock is free."""
    [lock] = folder.glob(".lightvision/runs/train_teacher-*/lock")
    with FileLock(lock, timeout=20):
        pass


def epochs_kept(folder: Path) -> int:
    """How many epochs the teacher's training could go on after, were it killed now."""
    if not list(folder.glob(".lightvision/runs/train_teacher-*/scratch/teacher.checkpoint")):
        return 0
    [journal] = folder.glob(".lightvision/runs/train_teacher-*/journal.jsonl")
    return journal.read_text().count('"event": "step"') - 1  # a step is told just before it is kept


def weights(folder: Path, name: str) -> str:
    return json.loads((folder / "models" / name / "model.json").read_text())["weights_sha256"]


def test_every_stage_writes_what_it_promises(project: Path) -> None:
    for stage in pipeline.read(project / "dvc.yaml").values():
        for path in stage.outputs.values():
            assert (project / path).exists(), f"{stage.name}: {path}"
    assert not list(project.rglob("*.partial"))
    assert ran(project, "repro") == []
    assert call(project, "dvc", "status") == "Data and pipelines are up to date.\n"


def test_every_stage_opens_only_what_it_declares(project: Path, opened: Path) -> None:
    stages = pipeline.read(project / "dvc.yaml")
    own = {"params.yaml", "dvc.yaml", ".lightvision", ".git", "stages"}
    seen: dict[str, set[str]] = {name: set() for name in stages}
    for line in opened.read_text().splitlines():
        name, path = line.split("\t")
        if Path(path).is_relative_to(project) and name in seen:
            seen[name].add(Path(path).relative_to(project).as_posix().replace(".partial", ""))
    for name, stage in stages.items():
        allowed = stage.deps | stage.outs
        strays = {path for path in seen[name] if path.partition("/")[0] not in own}
        strays = {path for path in strays if not path.startswith("__editable__")}  # setuptools' name for no file
        strays -= {"dvc.lock"} if name == "report" else set()  # whose page tells digests of what is declared
        strays = {path for path in strays if not any(f"{path}/".startswith(f"{place}/") for place in allowed)}
        assert not strays, name
        assert any(path.startswith(tuple(map(str, stage.inputs.values()))) for path in seen[name]) or not stage.inputs
    readers = {name for name, paths in seen.items() if any(path.startswith("data/test") for path in paths)}
    assert readers == {"prepare", "evaluate", "benchmark"}


def test_the_lines_of_the_readme_classify(project: Path, tmp_path: Path) -> None:
    """A picture, by the command and by the three lines, exactly as the README says but for its place."""
    Image.fromarray(np.load(project / "data/val/images.npy")[0]).save(tmp_path / "first.png")
    readme = (ROOT / "README.md").read_text().replace("/my/new/pictures/first.jpg", f"{tmp_path}/first.png")
    blocks = re.findall(r"(?:^    .*\n)+", readme.replace("/my/new/pictures", str(tmp_path)), re.MULTILINE)
    [code] = [block for block in blocks if "import load" in block]
    [line] = [block for block in blocks if block.strip().startswith("lightvision predict")]
    answer = call(project, sys.executable, "-c", textwrap.dedent(code)).strip()
    assert answer in set("0123456789")
    assert call(project, *line.split()).split()[:2] == [f"{tmp_path}/first.png", answer]


def test_a_change_runs_what_follows_and_going_back_runs_nothing(project: Path) -> None:
    call(project, "git", "add", "-A")
    call(project, "git", "commit", "-qm", "baseline")
    assert sorted(ran(project, "exp", "run", "-S", "prune.sparsity=0.75")) == sorted(AFTER_PRUNE)
    assert "0.75" in call(project, "dvc", "params", "diff")
    assert "prune.json" in call(project, "dvc", "metrics", "diff")
    shown = call(project, "dvc", "exp", "show", "--csv")
    assert "quantized.accuracy" in shown
    assert "prune.sparsity" in shown
    plots = call(project, "dvc", "plots", "show", "metrics/curves/teacher.csv")
    assert "index.html" in plots
    call(project, "git", "checkout", "params.yaml")
    assert ran(project, "repro") == []
    call(project, "git", "checkout", ".")
    assert call(project, "git", "status", "--short") == ""


def test_a_wrong_value_stops_before_anything_runs(project: Path) -> None:
    found = subprocess.run(
        ["dvc", "exp", "run", "-S", "prune.sparsity=many"], cwd=project, capture_output=True, text=True
    )
    assert found.returncode != 0
    assert (
        "prune: params.yaml: prune.sparsity: Input should be a valid number, got 'many'" in found.stdout + found.stderr
    )
    call(project, "git", "checkout", ".")
    call(project, "dvc", "checkout")
    assert ran(project, "repro") == []


@pytest.mark.parametrize(
    ("epochs_before_death", "kill", "shell"),
    [(1, os.killpg, "bash"), (4, os.kill, "bash"), (4, os.kill, "sh")],
    ids=["all processes", "dvc alone", "dvc alone, beside a shell that waits"],
)
def test_a_killed_training_goes_on_and_ends_the_same(
    project: Path,
    settings: params.Params,
    tmp_path: Path,
    epochs_before_death: int,
    kill: Callable[[int, int], None],
    shell: str,
) -> None:
    folder = clone(tmp_path, settings)
    call(folder, "dvc", "repro", "prepare")
    environment = os.environ | {"SHELL": f"/bin/{shell}"}
    with subprocess.Popen(
        ["dvc", "repro", "train_teacher"],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    ) as process:
        while epochs_kept(folder) < epochs_before_death:
            assert process.poll() is None
            time.sleep(0.02)
        kill(process.pid, signal.SIGKILL)
    wait_for_the_end(folder)
    assert not (folder / "models/teacher").exists()
    assert "teacher: goes on after epoch" in call(folder, "dvc", "repro", "train_teacher")
    assert weights(folder, "teacher") == weights(project, "teacher")
    assert (folder / "metrics/train_teacher.json").read_text() == (project / "metrics/train_teacher.json").read_text()


@pytest.fixture
def change(project: Path) -> Iterator[Callable[[str, str], None]]:
    """Of params.yaml, for one test."""
    path = project / "params.yaml"
    kept = path.read_text()

    def replace(before: str, after: str) -> None:
        assert before in kept
        path.write_text(kept.replace(before, after))

    yield replace
    path.write_text(kept)


def test_the_flow_runs_the_same_dag(project: Path, change: Callable[[str, str], None]) -> None:
    change("rounds: 3", "rounds: 4")
    told = call(project, sys.executable, "-m", "flows.pipeline")
    states = dict(line.split(": ") for line in told.splitlines() if re.fullmatch(r"\w+: (cached|completed)", line))
    assert {name for name, state in states.items() if state == "completed"} == {"benchmark", "report"}
    assert states.keys() == pipeline.read(project / "dvc.yaml").keys()
    assert ran(project, "repro") == []


def test_the_flow_says_what_failed(project: Path, change: Callable[[str, str], None]) -> None:
    change("rounds: 3", "rounds: many")
    found = subprocess.run([sys.executable, "-m", "flows.pipeline"], cwd=project, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("pipeline: params.yaml: benchmark.rounds")
