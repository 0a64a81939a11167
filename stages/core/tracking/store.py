"""What MLflow is told: a run for each pipeline, below it a run for each executed stage, and links to cached ones.

Only the forwarder's process imports this, and MLflow with it. Everything here may be done twice, because a forwarder
that was killed does its last lines again: runs are found by their tags, and MLflow keeps one of two equal points.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.running import files
from stages.core.tracking import models, provenance
from stages.core.tracking.events import Artifact, End, Event, Metrics, Register, Start, Step, Tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
KIND = {"mlflow.experimentKind": "custom_model_development"}  # without it the page shows what chat models need
DATASET = "split.json"  # a folder with this index is data, which DVC keeps


@dataclass(frozen=True)
class Child:
    """The MLflow run of one executed stage; its journal bears the name of its folder."""

    run_id: str
    parent_id: str
    stage: str
    folder: Path


class Store:
    """One MLflow experiment, wherever MLFLOW_TRACKING_URI says it is; else mlflow.db in the current folder."""

    def __init__(self) -> None:
        import mlflow

        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        mlflow.set_tracking_uri(self.uri)  # what is logged as a model goes by this, not by the client
        self._client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "lightvision"
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else self._client.create_experiment(name, tags=KIND)

    def child(self, journal: str) -> Child | None:
        """The run that was made for this journal, by this forwarder or by one before it."""
        for run in self._search({"lightvision.journal": journal}):
            tags = run.data.tags
            folder = Path(tags["lightvision.folder"])
            return Child(run.info.run_id, tags["mlflow.parentRunId"], tags["lightvision.stage"], folder)
        return None

    def send(self, journal: Path, child: Child | None, events: Sequence[Event]) -> Child | None:
        """Some lines of a journal in their order; without a start there is nothing that the rest could belong to."""
        numbers = _Numbers(self._client)
        for event in events:
            if isinstance(event, Start):
                child = self._start(journal.name, child, event)
            if child is None:
                continue
            match event:
                case Step() | Metrics() | Tags():
                    numbers.add(child, event)
                case Artifact():
                    self._artifact(child, journal / "artifacts" / event.name, event.name)
                case Register():
                    path = journal / "artifacts" / event.artifact / event.file
                    models.register(self._client, child.run_id, path, event)
                case End():
                    numbers.send()
                    self.end(child, event.status, event.reason, event.milliseconds)
        numbers.send()
        return child

    def end(self, child: Child, status: str, reason: str, milliseconds: int) -> None:
        """Close a stage's run, and its pipeline's too while no other stage is at work."""
        if reason:
            self._client.set_tag(child.run_id, "reason", reason[:5000])
        self._client.set_terminated(child.run_id, STATUSES[status], milliseconds)
        lock = child.folder / "dvc.lock"
        if lock.is_file():
            self._client.set_tag(child.parent_id, "dvc.lock", files.digest(lock))
        stages = self._search({"mlflow.parentRunId": child.parent_id})
        if all(run.info.status != "RUNNING" for run in stages):
            last = max(stages, key=lambda run: (run.info.end_time or 0, run.info.run_id == child.run_id))
            self._client.set_terminated(child.parent_id, last.info.status, last.info.end_time)

    def _start(self, journal: str, child: Child | None, event: Start) -> Child:
        parent = self._parent(event)
        tags = {
            "mlflow.parentRunId": parent,
            "mlflow.source.git.commit": event.commit.removesuffix("-dirty"),
            "mlflow.source.name": f"stages.{event.stage}",
            "commit": event.commit,
            "stage_key": event.key,
            "pipeline": event.pipeline,
            "lightvision.stage": event.stage,
            "lightvision.journal": journal,
            "lightvision.folder": event.folder,
            **{f"input.{name}": entry.digest for name, entry in event.inputs.items()},
        }
        if child is None:
            run = self._client.create_run(self._experiment, event.milliseconds, tags, event.stage)
            run_id = run.info.run_id
        else:
            run_id = child.run_id
            self._resume(run_id, tags)
        settings = dict(flat(event.settings))
        self._params(run_id, settings)
        self._params(parent, settings)
        self._datasets(run_id, event)
        self._links(parent, run_id, event)
        return Child(run_id, parent, event.stage, Path(event.folder))

    def _resume(self, run_id: str, tags: Mapping[str, str]) -> None:
        self._client.update_run(run_id, status="RUNNING")
        self._tags(run_id, tags)
        if "reason" in self._client.get_run(run_id).data.tags:
            self._client.delete_tag(run_id, "reason")

    def _parent(self, event: Start) -> str:
        """Found by its tags, so that all the stages of one `dvc repro`, and of later ones with equal code, meet."""
        about = {"lightvision.pipeline": event.pipeline, "lightvision.experiment": event.experiment or "-"}
        found = self._search(about)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        tags = {**about, "commit": event.commit, "mlflow.source.git.commit": event.commit.removesuffix("-dirty")}
        name = event.experiment or f"pipeline-{event.pipeline[:8]}"
        run = self._client.create_run(self._experiment, event.milliseconds, tags, name)
        return run.info.run_id

    def _links(self, parent: str, run_id: str, event: Start) -> None:
        """Say of each stage of the pipeline where its result comes from; nothing that did not happen gets a run."""
        tags = self._client.get_run(parent).data.tags
        links = {name.removeprefix("stage."): value for name, value in tags.items() if name.startswith("stage.")}
        for stage, key in provenance.upstream(event).items():
            if links.get(stage, "unknown") == "unknown":
                links[stage] = self._origin(parent, key) if key else "unknown"
        links[event.stage] = f"executed:{run_id}"
        new = {f"stage.{stage}": value for stage, value in links.items()}
        self._tags(parent, {**new, "mlflow.note.content": self._summary(links, event.order)})

    def _origin(self, parent: str, key: str) -> str:
        runs = [run for run in self._search({"stage_key": key}) if run.info.status == "FINISHED"]
        for run in runs:
            if run.data.tags.get("mlflow.parentRunId") == parent:
                return f"executed:{run.info.run_id}"
        return f"cached:{runs[-1].info.run_id}" if runs else "unknown"

    def _summary(self, links: Mapping[str, str], order: Sequence[str]) -> str:
        lines = ["| stage | result | run |", "| --- | --- | --- |"]
        for stage in sorted(links, key=lambda name: order.index(name) if name in order else len(order)):
            origin, _, run_id = links[stage].partition(":")
            link = f"[{run_id[:8]}](#/experiments/{self._experiment}/runs/{run_id})" if run_id else ""
            lines.append(f"| {stage} | {origin} | {link} |")
        return "\n".join(lines)

    def _datasets(self, run_id: str, event: Start) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        found = []
        for name, entry in event.inputs.items():
            folder = Path(event.folder) / entry.path
            if (folder / DATASET).is_file():
                source = json.dumps({"uri": folder.resolve().as_uri()})
                dataset = Dataset(name=entry.path, digest=entry.digest[:36], source_type="local", source=source)
                found.append(DatasetInput(dataset, [InputTag("mlflow.data.context", name)]))
        if found:
            self._client.log_inputs(run_id, datasets=found)

    def _artifact(self, child: Child, path: Path, name: str) -> None:
        if (path / DATASET).is_file():
            self._client.log_artifact(child.run_id, str(path / DATASET), name)
        elif path.is_dir():
            self._client.log_artifacts(child.run_id, str(path), name)
        elif path.is_file():
            self._client.log_artifact(child.run_id, str(path), name)

    def _params(self, run_id: str, settings: Mapping[str, str]) -> None:
        """MLflow refuses a second value for a parameter, so the first one stays."""
        from mlflow.entities import Param

        known = self._client.get_run(run_id).data.params
        new = [Param(proper(name), value[:6000]) for name, value in settings.items() if proper(name) not in known]
        for begin in range(0, len(new), 100):
            self._client.log_batch(run_id, params=new[begin : begin + 100])

    def _tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(proper(name), value[:8000]) for name, value in tags.items()]
        for begin in range(0, len(entries), 100):
            self._client.log_batch(run_id, tags=entries[begin : begin + 100])

    def _search(self, tags: Mapping[str, str]) -> "list[Run]":
        """Runs that were not deleted, oldest first."""
        wanted = " and ".join(f"tags.`{name}` = '{value.replace(chr(39), '')}'" for name, value in tags.items())
        return list(self._client.search_runs([self._experiment], wanted, order_by=["attributes.start_time ASC"]))


class _Numbers:
    """Points are gathered and sent together: a server is asked once for many lines."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client
        self._metrics: dict[str, list[Metric]] = {}
        self._words: dict[str, dict[str, str]] = {}

    def add(self, child: Child, event: Step | Metrics | Tags) -> None:
        match event:
            case Step():
                # a slash: MLflow shows a series as a section, and a result named alike stays out of the curve
                values = {f"{proper(event.series)}/{name}": value for name, value in event.values.items()}
                self._gather(child.run_id, values, event, event.step)
            case Metrics():
                self._gather(child.run_id, event.values, event, 0)
                result = {f"{child.stage}.{name}": value for name, value in event.values.items()}
                self._gather(child.parent_id, result, event, 0)
            case Tags():
                self._gather(child.run_id, event.numbers(), event, 0)
                self._words.setdefault(child.run_id, {}).update(event.words())

    def _gather(self, run_id: str, values: Mapping[str, float], event: Event, step: int) -> None:
        from mlflow.entities import Metric

        points = [Metric(proper(name), value, event.milliseconds, step) for name, value in values.items()]
        self._metrics.setdefault(run_id, []).extend(points)

    def send(self) -> None:
        from mlflow.entities import RunTag

        for run_id, points in self._metrics.items():
            for begin in range(0, len(points), 1000):
                self._client.log_batch(run_id, metrics=points[begin : begin + 1000])
        for run_id, words in self._words.items():
            self._client.log_batch(run_id, tags=[RunTag(proper(name), word[:5000]) for name, word in words.items()])
        self._metrics, self._words = {}, {}


def proper(name: str) -> str:
    """A name as MLflow allows it."""
    return re.sub(r"[^\w.: /-]", "_", name)[:250]


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings under the names they have in params.yaml: prune.training.epochs."""
    pairs: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return pairs
