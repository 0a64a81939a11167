"""MLflow's runs as runs: a parent for a state of the pipeline, and for each stage the child that executed it."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lightvision.runs import METRICS, Run
from stages.core.running import files, pipeline
from stages.core.running.errors import Refusal
from stages.core.running.journal import home
from stages.core.tracking import forwarding
from stages.core.tracking.__main__ import QUIET

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Entry

PAGE = 1000
Answer = TypeVar("Answer")
HEXADECIMAL = set("0123456789abcdef")


@dataclass(frozen=True)
class Memory:
    """One experiment of MLflow: all its runs, by their ids, and how to ask for what they keep."""

    uri: str
    client: "MlflowClient"
    entries: Mapping[str, "Entry"]

    @property
    def parents(self) -> "list[Entry]":
        return [entry for entry in self.entries.values() if "lightvision.pipeline" in entry.data.tags]

    def child(self, parent: "Entry", stage: str) -> "Entry | None":
        """The finished run behind a stage of a pipeline, its own or, where DVC had the result, an earlier one's."""
        link = parent.data.tags.get(f"stage.{stage}", "").partition(":")[2]
        found = self.entries.get(link)
        return found if found and found.info.status == "FINISHED" else None


def every(uri: str | None) -> list[Run]:
    """The newest first."""
    memory = remember(uri)
    return [run(memory, parent) for parent in reversed(memory.parents)]


def named(name: str) -> Run | None:
    """By an id, a parent's or a child's, or by as much of it as is unique."""
    if not set(name) <= HEXADECIMAL:
        return None
    memory = remember(None)
    fitting = [entry for run_id, entry in memory.entries.items() if run_id.startswith(name)]
    if not fitting:
        return None
    if len(fitting) > 1:
        raise Refusal(f"{len(fitting)} runs of MLflow have ids that begin with {name}: give more of it")
    parent = memory.entries.get(fitting[0].data.tags.get("mlflow.parentRunId", ""), fitting[0])
    return run(memory, parent)


def remember(uri: str | None) -> Memory:
    """Nothing is made where nothing is: a database, or an experiment, that only a reader asked for would be empty."""
    local = home().parent / "mlflow.db"
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local}"
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "lightvision"
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.is_file():
        raise Refusal(f"MLflow: {path} is not there, so there are no runs of it")
    found = _asked(uri, lambda client: client.get_experiment_by_name(name))
    if found is None:
        raise Refusal(f"MLflow: {uri} has no experiment {name} (MLFLOW_EXPERIMENT_NAME)")
    entries = _asked(uri, lambda client: {one.info.run_id: one for one in _search(client, found.experiment_id)})
    if not entries:
        raise Refusal(f"MLflow: the experiment {name} of {uri} has no runs")
    return Memory(uri, _client(uri), entries)


def run(memory: Memory, parent: "Entry") -> Run:
    name = f"{parent.info.run_name} ({parent.info.run_id[:8]})"
    params: dict[str, Any] = {}
    for tag in parent.data.tags:
        if tag.startswith("stage.") and (child := memory.child(parent, tag.removeprefix("stage."))):
            params |= {key: _value(text) for key, text in child.data.params.items()}
    metrics: dict[str, Any] = {}
    lacks: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage in METRICS:
            try:
                metrics[stage] = files.read_json(_bring(memory, parent, stage, "metrics", Path(folder)) / "metrics")
            except Refusal as refusal:
                lacks[stage] = str(refusal)
            except (OSError, ValueError):
                lacks[stage] = f"MLflow keeps no metrics of {stage} that can be read"
    return Run(name, params, metrics, lacks, partial(_fetch, memory, parent), partial(_told, memory, parent))


def _fetch(memory: Memory, parent: "Entry", path: str, folder: Path) -> Path:
    stage, artifact = _place(path)
    return _bring(memory, parent, stage, artifact, folder)


def _told(memory: Memory, parent: "Entry", path: str) -> str:
    stage, artifact = _place(str(Path(path).parent))
    child = memory.child(parent, stage)
    where = f"MLFLOW_TRACKING_URI={memory.uri} mlflow artifacts download"
    return f"{where} --run-id {child.info.run_id if child else ''} --artifact-path {artifact}/{Path(path).name}"


def _place(path: str) -> tuple[str, str]:
    """The stage that makes a path, and the name by which its run keeps it."""
    for stage in pipeline.read().values():
        for name, output in stage.outputs.items():
            if output == Path(path):
                return stage.name, name
    raise Refusal(f"dvc.yaml has no {path}: go to the project's folder")


def _bring(memory: Memory, parent: "Entry", stage: str, artifact: str, folder: Path) -> Path:
    child = memory.child(parent, stage)
    if child is None:
        raise Refusal(f"MLflow knows no finished {stage} of it")
    target = folder / f"{stage}-{artifact}"
    target.mkdir()
    try:
        return Path(memory.client.download_artifacts(child.info.run_id, artifact, str(target)))
    except Exception as error:  # the store's own library may raise anything
        raise Refusal(f"MLflow keeps no {artifact} of {stage} ({forwarding.root_cause(error)})") from error


def _asked(uri: str, ask: "Callable[[MlflowClient], Answer]") -> Answer:
    try:
        return ask(_client(uri))
    except Exception as error:  # MLflow, its database and its server may raise anything
        raise Refusal(f"MLflow: {uri} does not answer ({forwarding.root_cause(error)})") from error


def _client(uri: str) -> "MlflowClient":
    for name, value in (QUIET | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}).items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # takes seconds

    return MlflowClient(uri)


def _search(client: "MlflowClient", experiment: str) -> "Iterator[Entry]":
    """Oldest first, however many there are."""
    token = None
    while True:
        page = client.search_runs(
            [experiment], order_by=["attributes.start_time ASC"], max_results=PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _value(text: str) -> Any:
    """As it was in params.yaml, before it was written down as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
