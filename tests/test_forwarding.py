"""Journals reach MLflow whatever happens on the way. MLflow is the real one, on a SQLite file."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.onnx import load_model

from stages.core import params
from stages.core.running import files, identity, messenger, pipeline, sources
from stages.core.running.journal import Run
from stages.core.tracking import __main__ as command
from stages.core.tracking import events, forwarding, pipelines, provenance
from stages.core.tracking.outbox import Sent
from stages.core.tracking.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::sqlalchemy.exc.SADeprecationWarning",  # in mlflow's store
        "ignore:.*Any type hint is inferred:UserWarning",  # at the import of mlflow.pyfunc
    ),
]

ORDER = ["prepare", "distill", "prune", "evaluate"]
STAGE = """
import os, sys
from pathlib import Path
from stages.core.running import messenger
from stages.core.running.journal import Run
run = Run.open("distill", "d" * 64)
run.start({"stage": "distill", "key": "d" * 64, "pid": os.getpid(), "pipeline": "p" * 64})
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its making takes seconds, so each test gets a copy."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in command.QUIET.items():
            patch.setenv(name, value)
        path = tmp_path_factory.mktemp("database") / "mlflow.db"
        MlflowClient(f"sqlite:///{path}").search_experiments()
        yield path


@pytest.fixture
def project(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a person who set nothing up but a tracking address, absolute because MLflow remembers it."""
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forwarding, "POLL", 0.02)
    monkeypatch.setattr(forwarding, "BACK_OFF", 0.02)
    monkeypatch.setenv("PYTHONPATH", str(sources.ROOT))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("MLFLOW_EXPERIMENT_NAME", "LIGHTVISION_TRACKING", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def begin(
    stage: str,
    key: str = "",
    upstream: Mapping[str, str] | None = None,
    read: Mapping[str, Any] | None = None,
    **more: Any,
) -> Run:
    key = (key or stage).ljust(64, "0")
    run = Run.open(stage, key)
    surroundings = {"upstream": upstream or {}, "inputs": read or {}, "lock": "1" * 64}
    files.write_json(run.folder / provenance.FILE, surroundings)
    settings = {stage: {"training": {"epochs": 3, "rate": 0.1}, "method": {"name": "l2"}}, "seed": 0}
    facts = {"stage": stage, "key": key, "pid": os.getpid(), "commit": "c" * 40, "pipeline": "p" * 64}
    run.start({**facts, "experiment": "", "settings": settings, "inputs": {}, "order": ORDER, **more})
    return run


def forward() -> str:
    return forwarding.Forwarder(Path(".lightvision")).follow(0)


def start_forwarder(**environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "stages.core.tracking"]
    env = {**os.environ, **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def client() -> MlflowClient:
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def runs(name: str, **tags: str) -> list[MlflowRun]:
    experiment = client().get_experiment_by_name("lightvision")
    if experiment is None:
        return []
    found = client().search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return [run for run in found if tags.items() <= run.data.tags.items()]


def curve(run: MlflowRun, name: str) -> list[tuple[int, float]]:
    points = client().get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def folders() -> list[Path]:
    return list(Path(".lightvision/runs").iterdir())


def wait(condition: Callable[[], Any], every: float = 0.3) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(every)
    raise AssertionError("it did not happen in time")


def test_run_says_what_was_done(project: Path) -> None:
    files.write_json(Path("data/train/split.json"), {})
    files.write_text(Path("dvc.lock"), "stages: {}\n")
    inputs = {"train": {"path": "data/train", "digest": "7" * 64}, "teacher": {"path": "models/t", "digest": "8" * 64}}
    read = {"train": {"md5": "9" * 32 + ".dir", "is_data": True}, "teacher": {"maker": "train_teacher", "parents": {}}}
    run = begin("distill", inputs=inputs, read=read, host="gpu-1", flow_run="f-1", experiment="sweep-1")
    for step in range(3):
        run.step("student", step, {"loss": 1 / (step + 1), "accuracy": step / 10})
    run.metrics(Path("metrics/distill.json"), {"student": {"accuracy": 0.9}})
    run.tell(seconds=1.5, machine="a b", gate=True)
    run.end("finished")
    assert forward() == "MLflow: 1 run sent"

    [child] = runs("distill")
    [parent] = runs("sweep-1")
    assert child.info.status == parent.info.status == "FINISHED"
    assert child.data.params["distill.training.rate"] == parent.data.params["distill.training.rate"] == "0.1"
    assert curve(child, "student/loss") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert curve(child, "student/accuracy") == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert curve(child, "student.accuracy") == [(0, 0.9)]
    assert child.data.metrics["student.accuracy"] == parent.data.metrics["distill.student.accuracy"] == 0.9
    assert child.data.metrics["seconds"] == 1.5
    tags = {"machine": "a b", "gate": "True", "input.teacher": "8" * 64, "mlflow.parentRunId": parent.info.run_id}
    assert tags.items() <= child.data.tags.items()
    assert {"dvc.lock": "1" * 64, "md5.train": "9" * 32 + ".dir", "flow_run": "f-1"}.items() <= child.data.tags.items()
    told = {"dvc.lock": files.digest(Path("dvc.lock")), "hosts": "gpu-1", "flow_runs": "f-1", "experiment": "sweep-1"}
    assert told.items() <= parent.data.tags.items()
    assert child.inputs
    [dataset] = child.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("data/train", "9" * 32 + ".dir")
    assert folders() == []
    assert forward() == "MLflow: nothing to send"


def test_time_of_a_point_is_when_it_happened(project: Path) -> None:
    run = begin("distill")
    run.step("student", 0, {"loss": 1.0})
    happened = time.time() * 1000
    run.end("finished")
    time.sleep(0.3)
    forward()
    [child] = runs("distill")
    [point] = client().get_metric_history(child.info.run_id, "student/loss")
    assert point.timestamp == pytest.approx(happened, abs=100)
    assert child.info.end_time == pytest.approx(happened, abs=100)


def test_cached_stages_are_linked_and_get_no_run(project: Path) -> None:
    keys = {stage: stage.ljust(64, "0") for stage in ORDER}
    begin("distill").end("finished")
    begin("prune", upstream={"distill": keys["distill"]}).end("finished")
    first = {"distill": keys["distill"], "prepare": keys["prepare"]}
    begin("prune", key="other", pipeline="q" * 64, upstream=first).end("finished")
    forward()
    [distilled] = runs("distill")
    [here], [there] = runs("pipeline-pppppppp"), runs("pipeline-qqqqqqqq")
    assert here.data.tags["stage.distill"] == f"executed:{distilled.info.run_id}"
    assert there.data.tags["stage.distill"] == f"cached:{distilled.info.run_id}"
    assert there.data.tags["stage.prepare"] == "unknown"
    assert runs("prepare") == []
    note = there.data.tags["mlflow.note.content"].splitlines()
    assert [line.split(" | ")[:2] for line in note[2:]] == [
        ["| prepare", "unknown"],
        ["| distill", "cached"],
        ["| prune", "executed"],
    ]
    assert f"/runs/{distilled.info.run_id})" in note[3]

    begin("prepare", pipeline="r" * 64).end("finished")
    begin("evaluate", pipeline="q" * 64, upstream=first).end("finished")
    forward()
    [there] = runs("pipeline-qqqqqqqq")
    assert there.data.tags["stage.prepare"] == f"cached:{runs('prepare')[0].info.run_id}"


def test_pipeline_follows_its_last_stage(project: Path) -> None:
    begin("distill").end("finished")
    begin("prune").end("failed", "no such layer")
    forward()
    [failed], [parent] = runs("prune"), runs("pipeline-pppppppp")
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "no such layer")
    assert parent.info.status == "FAILED"
    assert [folder.name.partition("-")[0] for folder in folders()] == ["prune"]  # it may be resumed

    begin("prune").end("finished")
    forward()
    [again], [parent] = runs("prune"), runs("pipeline-pppppppp")
    assert again.info.run_id == failed.info.run_id
    assert again.info.status == parent.info.status == "FINISHED"
    assert "reason" not in again.data.tags
    assert folders() == []


def test_finished_pipeline_runs_again_while_a_stage_does(project: Path) -> None:
    begin("distill").end("finished")
    forward()
    assert runs("pipeline-pppppppp")[0].info.status == "FINISHED"
    run = begin("prune")
    [folder] = folders()
    lines = (folder / "journal.jsonl").read_bytes().splitlines()
    Store().send(folder, None, [events.parse(line) for line in lines])
    assert runs("pipeline-pppppppp")[0].info.status == "RUNNING"
    run.end("finished")
    forward()
    assert runs("pipeline-pppppppp")[0].info.status == "FINISHED"


def test_killed_stage_goes_on_in_the_same_run(project: Path) -> None:
    steps = "for step in range(3): run.step('student', step, {'loss': step})\n"
    subprocess.run([sys.executable, "-c", STAGE + steps + "os.kill(os.getpid(), 9)"], check=False)
    forward()
    [killed] = runs("distill")
    assert killed.info.status == runs("pipeline-pppppppp")[0].info.status == "KILLED"
    assert killed.info.end_time == client().get_metric_history(killed.info.run_id, "student/loss")[-1].timestamp
    [folder] = folders()
    assert (folder / "scratch").is_dir()
    assert forward() == "MLflow: nothing to send"

    more = "for step in range(1, 5): run.step('student', step, {'loss': step})\nrun.end('finished')\n"
    subprocess.run([sys.executable, "-c", STAGE + more], check=True)
    forward()
    [resumed] = runs("distill")
    assert (resumed.info.run_id, resumed.info.status) == (killed.info.run_id, "FINISHED")
    assert curve(resumed, "student/loss") == [(step, float(step)) for step in range(5)]


def test_killed_forwarder_loses_and_repeats_nothing(project: Path) -> None:
    run = begin("distill")
    for step in range(1500):
        run.step("student", step, {"loss": float(step)})
    run.end("finished")
    [folder] = folders()
    process = start_forwarder()
    wait((folder / "sent.json").exists, every=0.01)
    process.kill()
    process.communicate()
    assert 0 < json.loads((folder / "sent.json").read_text())["offset"] < (folder / "journal.jsonl").stat().st_size
    (folder / "sent.json").unlink()  # as if it had been killed before its first note
    forward()
    [child] = runs("distill")
    assert child.info.status == "FINISHED"
    assert curve(child, "student/loss") == [(step, float(step)) for step in range(1500)]
    assert len(runs("pipeline-pppppppp")) == 1


def test_unreachable_server_costs_nothing_but_time(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin("distill").end("finished")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        process = start_forwarder(MLFLOW_TRACKING_URI=address, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
        said, trace = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Traceback" in trace
    [line] = Path(".lightvision/unsent.txt").read_text().splitlines()
    assert said.strip() == line
    assert line.startswith("MLflow: 1 run waits to be sent (ConnectionRefusedError")
    assert len(folders()) == 1

    assert forward() == "MLflow: 1 run sent"
    assert runs("distill")[0].info.status == "FINISHED"
    assert not Path(".lightvision/unsent.txt").exists()


def test_missing_mlflow_costs_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin("distill").end("finished")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)  # as Python marks a module that cannot be imported
        assert "ModuleNotFoundError: import of mlflow halted" in forward()
    assert len(folders()) == 1
    assert forward() == "MLflow: 1 run sent"


def test_bad_journal_does_not_stop_the_others(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = begin("distill")
    [folder] = folders()
    with (folder / "journal.jsonl").open("a") as stream:
        stream.write('{"event": "step", "series"\n{"event": "step", "time": 1, "series": "a"}\n{"event": "new"}\nxyz\n')
    bad.step("student", 0, {"loss": 1.0})
    bad.end("finished")
    lost = Path(".lightvision/runs/evaluate-0-0")
    files.write_text(lost / "journal.jsonl", '{"event": "end", "time": 1.0, "status": "finished"}\n')
    files.write_text(lost / "sent.json", "[")
    refused = Path(".lightvision/runs/export-0-1")
    start = {"event": "start", "time": 1e30, "stage": "export", "key": "k", "pid": 1, "pipeline": "p"}
    end = {"event": "end", "time": 1, "status": "failed"}
    files.write_text(refused / "journal.jsonl", f"{json.dumps(start)}\n{json.dumps(end)}\n")
    begin("prune").end("finished")
    assert forward().startswith("MLflow: 1 run waits to be sent (")  # no database holds so large a time
    assert curve(runs("distill")[0], "student/loss") == [(0, 1.0)]
    assert runs("prune")[0].info.status == "FINISHED"
    assert folders() == [refused]
    assert capsys.readouterr().out.count("not an event, skipped") == 4


def test_other_store_gets_everything(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin("distill")
    run.step("student", 0, {"loss": 1.0})
    run.end("failed")
    forward()
    shutil.copy("mlflow.db", "other.db")
    other = MlflowClient(f"sqlite:///{project}/other.db")
    other.delete_run(runs("distill")[0].info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/other.db")
    begin("distill").end("finished")
    forward()
    [child] = runs("distill")
    assert curve(child, "student/loss") == [(0, 1.0)]


def test_kept_output_is_sent_as_it_was(project: Path) -> None:
    run = begin("distill")
    files.write_text(Path("models/student/model.json"), "old")
    files.write_text(Path("table.csv"), "old")
    files.write_json(Path("data/train/split.json"), {})
    files.write_text(Path("data/train/pictures"), "many")
    for path in ("models/student", "table.csv", "data/train"):
        run.keep(Path(path).name, Path(path))
    files.write_text(Path("models/student/model.json"), "new")
    shutil.rmtree("data")
    files.write_text(Path("table.csv"), "new")
    run.end("finished")
    forward()
    [child] = runs("distill")
    folder = Path(client().download_artifacts(child.info.run_id, ""))
    sent = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert sent == {"student/model.json": "old", "table.csv/table.csv": "old", "train/split.json": "{}\n"}
    assert folder.is_relative_to(project / "mlruns")


def ship(key: str, accuracy: float, size: int, judged_on: str = "these", **more: Any) -> None:
    """As export does, after its gates."""
    shape = ["n", 1, 4, 4]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    Path("onnx").mkdir(exist_ok=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), "onnx/quantized.onnx")
    run = begin("export", key=key, **more)
    facts = {"gates": {}, "accuracy": accuracy, "judged_on": judged_on, "bytes": size}
    run.register("onnx", "quantized.onnx", "digits", **facts)
    run.keep("onnx", Path("onnx"))
    run.end("finished")
    assert forward() == "MLflow: 1 run sent"


def test_best_model_is_champion(project: Path) -> None:
    def aliases() -> dict[str, str]:
        found = client().get_registered_model("digits").aliases
        return {alias: str(number) for alias, number in found.items()}  # an int or a str, as the store likes

    ship("a", 0.80, 100)
    assert aliases() == {"champion": "1"}
    ship("z", 0.99, 100, judged_on="other pictures")
    assert aliases() == {"champion": "1", "challenger": "2"}
    ship("b", 0.90, 100)
    assert aliases() == {"champion": "3", "challenger": "2"}
    ship("c", 0.89, 10)
    assert aliases() == {"champion": "3", "challenger": "4"}
    ship("d", 0.90, 101)
    assert aliases() == {"champion": "3", "challenger": "5"}
    ship("e", 0.90, 100)
    assert aliases() == {"champion": "6", "challenger": "5"}
    ship("f", 0.91, 900)
    assert aliases() == {"champion": "7", "challenger": "5"}
    ship("f", 0.91, 900)
    assert len(client().search_model_versions("name = 'digits'")) == 7

    version = client().get_model_version("digits", "7")
    origin = {"stage_key": "f".ljust(64, "0"), "commit": "c" * 40, "pipeline": "p" * 64, "gates": "{}"}
    assert origin.items() <= version.tags.items()
    assert version.run_id in {run.info.run_id for run in runs("export")}
    assert {run.info.status for run in runs("export")} == {"FINISHED"}
    experiment = client().get_experiment_by_name("lightvision")
    assert experiment
    assert len(client().search_logged_models([experiment.experiment_id])) == 7
    loaded = load_model("models:/digits@champion")
    assert [node.op_type for node in loaded.graph.node] == ["Relu"]


def test_old_work_is_cleared_away_once_sent(project: Path) -> None:
    for stage in ("distill", "prune", "evaluate"):
        begin(stage).end("failed")
    forward()
    assert len(folders()) == 3
    week = time.time() - 8 * 24 * 3600
    for folder in folders():
        if not folder.name.startswith("distill"):
            os.utime(folder / "journal.jsonl", (week, week))
    [held] = [folder for folder in folders() if folder.name.startswith("prune")]
    with FileLock(held / "lock"):
        forward()
    assert sorted(folder.name.partition("-")[0] for folder in folders()) == ["distill", "prune"]


def test_stage_is_followed_live_and_waits_for_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    files.write_text(Path(".lightvision/unsent.txt"), "MLflow: 3 runs wait\n")
    rest = """
import time
began = time.monotonic(); messenger.ensure(); print(time.monotonic() - began, flush=True)
run.step("student", 0, {"loss": 1.0}); sys.stdin.readline()
run.step("student", 1, {"loss": 0.5}); run.end("finished")
"""
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE + rest], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    [live] = wait(lambda: [run for run in runs("distill") if "student/loss" in run.data.metrics])
    assert live.info.status == runs("pipeline-pppppppp")[0].info.status == "RUNNING"
    assert stage.poll() is None
    said, _ = stage.communicate("\n", timeout=30)  # returns when nobody holds the pipe any more
    assert said.splitlines()[0] == "MLflow: 3 runs wait"
    assert float(said.splitlines()[1]) < 1
    with pytest.raises(Timeout), FileLock(".lightvision/forwarding.lock", timeout=0):
        pass
    wait(lambda: runs("distill")[0].info.status == "FINISHED")
    assert curve(runs("distill")[0], "student/loss") == [(0, 1.0), (1, 0.5)]
    wait(lambda: not folders() and not Path(".lightvision/unsent.txt").exists())


def test_tracking_can_be_turned_off(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTVISION_TRACKING", "off")
    messenger.ensure()
    assert not Path(".lightvision").exists()


def test_start_of_the_forwarder_never_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".lightvision").write_text("a file where a folder should be")
    messenger.ensure()
    assert capsys.readouterr().out.startswith("MLflow is not told of this: ")


def test_forwarder_goes_when_there_is_nothing_to_send(project: Path) -> None:
    process = start_forwarder()
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "MLflow: nothing to send\n")


def test_stages_do_not_load_mlflow() -> None:
    code = "import sys, stages.core.running.command; print('mlflow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=sources.ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_upstream_is_told_by_the_files_while_they_are_those_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(sources.ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = params.load(Path("params.yaml")).pick(("prepare", "seed"))
    about = {"event": "start", "time": 0.0, "stage": "train_teacher", "key": "k", "pid": 1, "folder": str(tmp_path)}
    start = events.Start(**about, pipeline=pipeline.state(pipeline.read()))
    monkeypatch.chdir("/")
    assert provenance.look(start).upstream == {"prepare": identity.key("prepare", {}, settings)}
    with (tmp_path / "params.yaml").open("a") as stream:
        stream.write("# changed since\n")
    assert provenance.look(start).upstream == {"prepare": ""}


def test_clone_may_be_gone_before_it_is_sent(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests are DVC's own; a size that dvc.lock does not tell is of other pictures."""
    clone = project / "clone"
    files.write_json(clone / "data/train/split.json", {})
    files.write_json(clone / "models/teacher/model.json", {"parents": {"grandparent": "0" * 64}})
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(sources.ROOT / name, clone)
    outs = [("data/train", "a" * 32 + ".dir", 3), ("models/teacher", "b" * 32 + ".dir", 9999)]
    lock = {"stages": {"any": {"outs": [{"path": path, "md5": md5, "size": size} for path, md5, size in outs]}}}
    files.write_json(clone / "dvc.lock", lock)
    paths = {"train": "data/train", "teacher": "models/teacher"}
    inputs = {name: {"path": path, "digest": files.digest(clone / path)} for name, path in paths.items()}
    with monkeypatch.context() as patch:
        patch.chdir(clone)
        state = pipeline.state(pipeline.read())
    run = begin("advise", inputs=inputs, folder=str(clone), pipeline=state)
    (run.folder / provenance.FILE).unlink()
    locked = files.digest(clone / "dvc.lock")
    provenance.witness(Path(".lightvision"))
    shutil.rmtree(clone)
    run.end("finished")
    assert forward() == "MLflow: 1 run sent"
    [child], [parent] = runs("advise"), runs(f"pipeline-{state[:8]}")
    [dataset] = child.inputs.dataset_inputs if child.inputs else []
    assert (dataset.dataset.name, dataset.dataset.digest) == ("data/train", "a" * 32 + ".dir")
    assert child.data.tags["md5.train"] == "a" * 32 + ".dir"
    assert "md5.teacher" not in child.data.tags
    assert parent.data.tags["dvc.lock"] == child.data.tags["dvc.lock"] == locked
    assert {"stage.prepare", "stage.train_teacher", "stage.advise"} <= parent.data.tags.keys()


def test_stage_is_witnessed_by_its_own_code(project: Path) -> None:
    """A forwarder of another clone shares the home, but its code would give other keys."""
    files.write_text(project / "clone/dvc.yaml", "stages: {}\n")
    (project / "clone/stages/core").mkdir(parents=True)
    run = begin("advise", folder=str(project / "clone"))
    (run.folder / provenance.FILE).unlink()
    provenance.witness(Path(".lightvision"))
    assert not (run.folder / provenance.FILE).exists()


def test_two_runs_of_one_pipeline_become_one(project: Path) -> None:
    """As after two hosts have made one each, and told it something."""
    begin("distill").end("finished")
    forward()
    [parent] = runs("pipeline-pppppppp")
    about = {name: parent.data.tags[name] for name in pipelines.IDENTITY}
    [experiment] = [one.experiment_id for one in client().search_experiments() if one.name == "lightvision"]
    later = client().create_run(experiment, parent.info.start_time + 5, {**about, "stage.advise": "cached:x"}, "twin")
    tags = {"mlflow.parentRunId": later.info.run_id, "lightvision.stage": "evaluate"}
    lost = client().create_run(experiment, parent.info.start_time + 6, tags, "lost")
    client().set_terminated(lost.info.run_id)
    client().log_param(later.info.run_id, "only.there", "1")
    client().log_metric(later.info.run_id, "evaluate.accuracy", 0.5)
    begin("prune").end("finished")
    forward()
    [parent] = runs("pipeline-pppppppp")
    assert runs("twin") == []
    children = [*runs("distill"), *runs("prune"), *runs("lost")]
    assert [child.data.tags["mlflow.parentRunId"] for child in children] == [parent.info.run_id] * 3
    assert parent.data.params["only.there"] == "1"
    assert parent.data.metrics["evaluate.accuracy"] == 0.5
    assert parent.data.tags["stage.advise"] == "cached:x"
    assert parent.data.tags["stage.evaluate"] == f"executed:{lost.info.run_id}"


def test_stage_goes_on_below_the_pipeline_that_stayed(project: Path) -> None:
    """Its own was deleted while it was at work: by another host's forwarder, or by a person."""
    run = begin("distill")
    [folder] = folders()
    start = [events.parse(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()]
    begun = Store().send(folder, None, start)
    assert begun
    Sent(begun.run_id, (folder / "journal.jsonl").stat().st_size).save(folder)
    client().delete_run(runs("pipeline-pppppppp")[0].info.run_id)
    run.metrics(Path("metrics/distill.json"), {"accuracy": 0.9})
    run.end("finished")
    assert forward() == "MLflow: 1 run sent"
    [child], [parent] = runs("distill"), runs("pipeline-pppppppp")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.status, parent.data.metrics["distill.accuracy"]) == ("FINISHED", 0.9)


def test_work_of_a_dead_host_has_ended_once_another_did_it(project: Path) -> None:
    """Two homes: that of a host which is no more, whose forwarder died with it, and that of the next."""
    dead = begin("distill", host="gpu-1")
    [folder] = folders()
    lines = (folder / "journal.jsonl").read_bytes().splitlines()
    Store().send(folder, None, [events.parse(line) for line in lines])
    dead.end("killed")
    shutil.rmtree(".lightvision")
    begin("distill", host="gpu-2").end("finished")
    forward()
    ended = {child.data.tags["host"]: child.info.status for child in runs("distill")}
    assert ended == {"gpu-1": "KILLED", "gpu-2": "FINISHED"}
    [parent] = runs("pipeline-pppppppp")
    assert (parent.info.status, parent.data.tags["hosts"]) == ("FINISHED", "gpu-1,gpu-2")
    [heir] = [child for child in runs("distill") if child.data.tags["host"] == "gpu-2"]
    assert parent.data.tags["stage.distill"] == f"executed:{heir.info.run_id}"


def test_request_that_was_made_twice_leaves_one_run(project: Path) -> None:
    begin("distill").end("failed")
    forward()
    [child] = runs("distill")
    client().create_run(child.info.experiment_id, child.info.start_time, child.data.tags, "distill")
    begin("distill").end("finished")
    forward()
    [child] = runs("distill")
    assert child.info.status == "FINISHED"


def test_person_moves_a_champion_and_a_journal_sent_twice_does_not(project: Path) -> None:
    ship("a", 0.80, 100)
    ship("b", 0.90, 100)
    client().set_registered_model_alias("digits", "champion", "1")
    ship("b", 0.90, 100)
    aliases = client().get_registered_model("digits").aliases
    assert {alias: str(number) for alias, number in aliases.items()} == {"champion": "1"}
    ship("c", 0.85, 100)
    assert str(client().get_registered_model("digits").aliases["champion"]) == "3"


def test_version_says_what_it_was_made_from(project: Path) -> None:
    begin("quantize").end("finished")
    forward()
    inputs = {"quantized": {"path": "models/quantized", "digest": "5" * 64}}
    read = {"quantized": {"maker": "quantize", "parents": {"pruned": "6" * 64}}}
    ship("a", 0.80, 100, inputs=inputs, read=read, experiment="")
    [quantized] = runs("quantize")
    [version] = client().search_model_versions("name = 'digits'")
    told = {
        "sha256": files.digest(Path("onnx/quantized.onnx")),
        "model.quantized": "5" * 64,
        "model.quantized.parents": json.dumps({"pruned": "6" * 64}),
        "model.quantized.run": f"executed:{quantized.info.run_id}",
        "placed": "champion",
    }
    assert told.items() <= version.tags.items()


HOST = """
import os, sys
from pathlib import Path
from stages.core.running.journal import Run
from stages.core.tracking import forwarding
number = sys.argv[1]
forwarding.ATTEMPTS = 1000
run = Run.open("distill", f"d{number}".ljust(64, "0"))
facts = {"stage": "distill", "key": f"d{number}".ljust(64, "0"), "pid": os.getpid(), "host": f"gpu-{number}"}
run.start({**facts, "pipeline": "p" * 64, "commit": "c" * 40, "settings": {number: 1}, "order": ["distill"]})
for step in range(20):
    run.step("student", step, {"loss": step})
run.metrics(Path(f"metrics/{number}.json"), {f"accuracy{number}": 0.5})
run.register("onnx", "quantized.onnx", "digits", gates={}, accuracy=int(number) / 10, judged_on="x", bytes=1)
run.keep("onnx", Path(sys.argv[2]))
run.end("finished")
print("ready", flush=True)
sys.stdin.readline()
print(forwarding.Forwarder(Path(".lightvision")).follow(0))
"""
HOSTS = range(1, 5)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def serve(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Its first start makes the database."""
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "2", *store]
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stop(server: "subprocess.Popen[bytes]") -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_hosts_that_tell_a_fresh_server_at_once_share_one_pipeline_and_one_champion(
    project: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed while they do, and comes back; the best of the files is champion, whoever was last."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    (project / "onnx").mkdir()
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    onnx.save(model, project / "onnx/quantized.onnx")
    server = serve(project, port)
    hosts: list[subprocess.Popen[str]] = []
    try:
        for number in HOSTS:
            (project / f"host-{number}").mkdir()
            hosts.append(
                subprocess.Popen(
                    [sys.executable, "-c", HOST, str(number), str(project / "onnx")],
                    cwd=project / f"host-{number}",
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
        assert [host.stdout.readline() for host in hosts if host.stdout] == ["ready\n"] * len(HOSTS)
        wait(lambda: answers(port))
        for host in hosts:
            assert host.stdin
            host.stdin.write("\n")
            host.stdin.flush()
        wait(lambda: runs("distill"), every=0.05)
        stop(server)
        server = serve(project, port)
        said = [host.communicate(timeout=240)[0].splitlines()[-1] for host in hosts]
        assert said == ["MLflow: 1 run sent"] * len(HOSTS)

        [parent] = runs("pipeline-pppppppp")
        children = runs("distill")
        assert sorted(child.data.tags["host"] for child in children) == [f"gpu-{number}" for number in HOSTS]
        assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
        assert {run.info.status for run in [*children, parent]} == {"FINISHED"}
        for child in children:
            assert curve(child, "student/loss") == [(step, float(step)) for step in range(20)]
        assert parent.data.tags["hosts"] == ",".join(f"gpu-{number}" for number in HOSTS)
        assert parent.data.params == {str(number): "1" for number in HOSTS}
        assert parent.data.metrics == {f"distill.accuracy{number}": 0.5 for number in HOSTS}
        versions = client().search_model_versions("name = 'digits'")
        assert sorted(version.tags["accuracy"] for version in versions) == [str(number / 10) for number in HOSTS]
        champion = client().get_model_version_by_alias("digits", "champion")
        assert champion.tags["accuracy"] == str(max(HOSTS) / 10)
    finally:
        stop(server)
        for host in hosts:
            host.kill()
            host.communicate()
