"""What MLflow is told: a run for each pipeline, below it a run for each executed stage, and links to cached ones.

Only the forwarder's process imports this, and MLflow with it. Everything here may be done twice, because a forwarder
that was killed does its last lines again: runs are found by their tags, and MLflow keeps one of two equal points.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.running import files
from stages.core.tracking import models, provenance
from stages.core.tracking.events import Artifact, End, Event, Metrics, Register, Start, Step, Tags
from stages.core.tracking.experiment import Experiment, flat, proper
from stages.core.tracking.pipelines import LINK, PARENT, UNKNOWN, Pipelines
from stages.core.tracking.provenance import DATASET, Surroundings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
DIGITS = 36  # of a digest that MLflow keeps: those of DVC's, with .dir
ORIGIN = ("stage_key", "commit", "experiment", "pipeline")


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
        self._experiment = Experiment.open(self._client, name)
        self._pipelines = Pipelines(self._experiment)

    def child(self, journal: Path) -> Child | None:
        """The run that was made for this journal, by this forwarder or by one before it.

        A request that a slow server answered too late was made again, so there may be two.
        """
        found = sorted(self._experiment.search({"lightvision.journal": journal.name}), key=lambda run: run.info.run_id)
        for other in found[1:]:
            self._client.delete_run(other.info.run_id)
        if not found:
            return None
        run_id, tags = found[0].info.run_id, found[0].data.tags
        parent = self._place(run_id, tags[PARENT])
        return Child(run_id, parent, tags["lightvision.stage"], Path(tags["lightvision.folder"]))

    def send(self, journal: Path, child: Child | None, events: Sequence[Event]) -> Child | None:
        """Some lines of a journal in their order; without a start there is nothing that the rest could belong to."""
        numbers = _Numbers(self._client)
        for event in events:
            if isinstance(event, Start):
                child = self._start(journal, child, event)
            if child is None:
                continue
            match event:
                case Step() | Metrics() | Tags():
                    numbers.add(child, event)
                case Artifact():
                    self._artifact(child, journal / "artifacts" / event.name, event.name)
                case Register():
                    path = journal / "artifacts" / event.artifact / event.file
                    models.register(self._client, child.run_id, path, event, self._origin(child, journal))
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
        if status == "finished":
            self._pipelines.bury(child.parent_id, self._client.get_run(child.run_id))
        self.lock(child)
        self._pipelines.describe(child.parent_id, {})
        self._pipelines.close(child.parent_id)

    def lock(self, child: Child) -> None:
        """As it is now, where the stage's folder is still there."""
        lock = child.folder / "dvc.lock"
        if lock.is_file():
            self._client.set_tag(child.parent_id, "dvc.lock", files.digest(lock))

    def _start(self, journal: Path, child: Child | None, event: Start) -> Child:
        known = provenance.read(journal)
        parent = self._pipelines.of(event)
        tags = {
            PARENT: parent,
            "mlflow.source.git.commit": event.commit.removesuffix("-dirty"),
            "mlflow.source.name": f"stages.{event.stage}",
            "commit": event.commit,
            "experiment": event.experiment,
            "flow_run": event.flow_run,
            "host": event.host,
            "dvc.lock": known.lock,
            "stage_key": event.key,
            "pipeline": event.pipeline,
            "lightvision.stage": event.stage,
            "lightvision.journal": journal.name,
            "lightvision.folder": event.folder,
            **{f"input.{name}": entry.digest for name, entry in event.inputs.items()},
            **{f"md5.{name}": one.md5 for name, one in known.inputs.items()},
        }
        tags = {name: value for name, value in tags.items() if value}
        if child is None:
            run_id = self._client.create_run(self._experiment.id, event.milliseconds, tags, event.stage).info.run_id
        else:
            run_id = child.run_id
            self._resume(run_id, tags)
        parent = self._place(run_id, parent)
        self._pipelines.open(parent)
        if known.lock and "dvc.lock" not in self._client.get_run(parent).data.tags:
            self._client.set_tag(parent, "dvc.lock", known.lock)
        settings = dict(flat(event.settings))
        self._experiment.params(run_id, settings)
        self._experiment.params(parent, settings)
        self._datasets(run_id, event, known)
        self._pipelines.describe(parent, known.upstream)
        return Child(run_id, parent, event.stage, Path(event.folder))

    def _place(self, run_id: str, parent: str) -> str:
        """Below the pipeline's run that is there: another host's forwarder may just have put one in its place."""
        while (living := self._pipelines.living(parent)) != parent:
            self._client.set_tag(run_id, PARENT, living)
            parent = living
        return parent

    def _resume(self, run_id: str, tags: dict[str, str]) -> None:
        self._client.update_run(run_id, status="RUNNING")
        self._experiment.tag(run_id, tags)
        if "reason" in self._client.get_run(run_id).data.tags:
            self._client.delete_tag(run_id, "reason")

    def _origin(self, child: Child, journal: Path) -> dict[str, str]:
        """Of a version: what it was made at, and each model that it was made from with the run that made that."""
        tags = self._client.get_run(child.run_id).data.tags
        links = self._client.get_run(child.parent_id).data.tags
        origin = {name: tags[name] for name in ORIGIN if name in tags}
        for name, one in provenance.read(journal).inputs.items():
            if one.parents is not None:
                origin[f"model.{name}"] = tags[f"input.{name}"]
                origin[f"model.{name}.parents"] = json.dumps(one.parents)
                origin[f"model.{name}.run"] = links.get(LINK + one.maker, UNKNOWN)
        return origin

    def _datasets(self, run_id: str, event: Start, known: Surroundings) -> None:
        """By DVC's digest, which dvc.lock tells too; by the project's own where nobody recorded that."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        found = []
        for name, one in known.inputs.items():
            if one.is_data:
                entry = event.inputs[name]
                source = {
                    "uri": (Path(event.folder) / entry.path).resolve().as_uri(),
                    "md5": one.md5,
                    "sha256": entry.digest,
                }
                digest = (one.md5 or entry.digest)[:DIGITS]
                dataset = Dataset(name=entry.path, digest=digest, source_type="local", source=json.dumps(source))
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
