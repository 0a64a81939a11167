"""A run for each pipeline, above the runs of its stages, whichever hosts these were executed on.

Forwarders of several hosts tell one server at once, which gives them neither locks nor an order. So each writes first
and looks afterwards: of two that meet, at least one sees what the other wrote, and puts both in order.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stages.core.tracking.events import Start
from stages.core.tracking.experiment import Experiment

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
IDENTITY = ("lightvision.pipeline", "lightvision.experiment")
LINK = "stage."
UNKNOWN = "unknown"
GATHERED = {"host": "hosts", "flow_run": "flow_runs"}  # a child's tag, and its parent's of all of them


class Pipelines:
    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._client = experiment.client

    def of(self, event: Start) -> str:
        """Found by its tags, so that all the stages of one `dvc repro`, and of later ones with equal code, meet."""
        about: dict[str, str] = dict(zip(IDENTITY, (event.pipeline, event.experiment or "-"), strict=True))
        tags = {"commit": event.commit, "mlflow.source.git.commit": event.commit.removesuffix("-dirty")}
        tags |= {"experiment": event.experiment, "lightvision.order": ",".join(event.order)}
        name = event.experiment or f"pipeline-{event.pipeline[:8]}"
        return self._found(about, event.milliseconds, tags, name)

    def living(self, run_id: str) -> str:
        """The run itself, or the one that took its place; a person who deleted it gets another."""
        run = self._client.get_run(run_id)
        if run.info.lifecycle_stage == "active":
            return run_id
        about = {name: run.data.tags[name] for name in IDENTITY}
        tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.user")}
        return self._found(about, run.info.start_time, tags, run.info.run_name or "pipeline")

    def _found(self, about: Mapping[str, str], start: int, tags: Mapping[str, str], name: str) -> str:
        found = self._experiment.search(about)
        if not found:
            made = self._client.create_run(self._experiment.id, start, {**tags, **about}, name)
            found = self._experiment.search(about) or [made]
        first, *others = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
        for other in others:
            self._take_over(first.info.run_id, other.info.run_id)
            self._client.delete_run(other.info.run_id)  # until now it took what it was told; that is taken over too
            self._take_over(first.info.run_id, other.info.run_id)
        return first.info.run_id

    def _take_over(self, first: str, other: str) -> None:
        for child in self._experiment.search({PARENT: other}):
            self._client.set_tag(child.info.run_id, PARENT, first)
        run, known = self._client.get_run(other), self._client.get_run(first).data.tags
        self._experiment.params(first, run.data.params)
        new = {name: value for name, value in run.data.tags.items() if known.get(name, UNKNOWN) == UNKNOWN}
        self._experiment.tag(first, {name: value for name, value in new.items() if name.startswith(LINK)})
        for name in run.data.metrics:
            self._client.log_batch(first, metrics=self._client.get_metric_history(other, name))

    def describe(self, parent: str, upstream: Mapping[str, str]) -> None:
        """Say of each stage where its result comes from; nothing that did not happen gets a run.

        What was executed is read off the children, never off what another forwarder wrote here, so that the last to
        write is right; `upstream` are keys of stages, empty where nobody knows them.
        """
        tags = self._client.get_run(parent).data.tags
        children = self._experiment.search({PARENT: parent})
        links = {name.removeprefix(LINK): value for name, value in tags.items() if name.startswith(LINK)}
        for stage, key in upstream.items():
            if links.get(stage, UNKNOWN) == UNKNOWN:
                links[stage] = self._cached(key) if key else UNKNOWN
        for child in sorted(children, key=lambda run: (run.info.status == "FINISHED", run.info.start_time)):
            links[child.data.tags["lightvision.stage"]] = f"executed:{child.info.run_id}"
        new = {LINK + stage: value for stage, value in links.items()}
        for one, all_of_them in GATHERED.items():
            new[all_of_them] = ",".join(sorted({child.data.tags.get(one, "") for child in children} - {""}))
        order = tags.get("lightvision.order", "").split(",")
        new["mlflow.note.content"] = self._summary(links, order)
        self._experiment.tag(parent, {name: value for name, value in new.items() if tags.get(name, "") != value})

    def _cached(self, key: str) -> str:
        runs = [run for run in self._experiment.search({"stage_key": key}) if run.info.status == "FINISHED"]
        return f"cached:{runs[-1].info.run_id}" if runs else UNKNOWN

    def _summary(self, links: Mapping[str, str], order: Sequence[str]) -> str:
        lines = ["| stage | result | run |", "| --- | --- | --- |"]
        for stage in sorted(links, key=lambda name: order.index(name) if name in order else len(order)):
            origin, _, run_id = links[stage].partition(":")
            link = f"[{run_id[:8]}](#/experiments/{self._experiment.id}/runs/{run_id})" if run_id else ""
            lines.append(f"| {stage} | {origin} | {link} |")
        return "\n".join(lines)

    def open(self, parent: str) -> None:
        """After a child was begun, never before: who closes the pipeline meanwhile sees it, or is undone here."""
        self._client.update_run(parent, status="RUNNING")

    def close(self, parent: str) -> None:
        """While no stage is at work a pipeline is as the last of them ended."""
        told = ""
        while (last := self._last(parent)).info.status != told:
            told = last.info.status
            if told == "RUNNING":
                self._client.update_run(parent, status=told)
            else:
                self._client.set_terminated(parent, told, last.info.end_time)

    def _last(self, parent: str) -> "Run":
        return max(
            self._experiment.search({PARENT: parent}),
            key=lambda run: (run.info.status == "RUNNING", run.info.end_time or 0, run.info.start_time),
        )

    def bury(self, parent: str, heir: "Run") -> None:
        """A host that died tells nobody: what it left behind has ended once the same work was done elsewhere.

        Should it live after all, it says itself how it ended.
        """
        begun = heir.info.start_time
        for child in self._experiment.search({PARENT: parent, "stage_key": heir.data.tags["stage_key"]}):
            if child.info.status == "RUNNING" and child.info.start_time < begun:
                self._client.set_tag(child.info.run_id, "reason", f"not heard of; run {heir.info.run_id} did its work")
                self._client.set_terminated(child.info.run_id, "KILLED", begun)
