"""DVC's experiments, commits and the workspace as runs: params.yaml, dvc.lock and metrics as git keeps them.

Experiments are commits that git knows by refs/exps; one that failed or waits has none.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from lightvision import experiments, objects
from lightvision.experiments import FINISHED, Row
from lightvision.runs import METRICS, SHIPPED, Run
from stages.core.running import pipeline
from stages.core.running.errors import Refusal
from stages.core.running.pipeline import Stage

WORKSPACE = "workspace"
EXPERIMENT = re.compile(r"(?P<rev>\w{40}) refs/exps/(?P<begin>\w{2})/(?P<rest>\w{38})/(?P<name>.+)")


@dataclass(frozen=True)
class Experiment:
    """`baseline` is the commit that it was made from."""

    name: str
    rev: str
    baseline: str


def every(revisions: Sequence[str]) -> Iterator[Run]:
    """Of these commits if there are any, else of all; then the commits themselves, or HEAD and the workspace."""
    commits = [commit(revision) for revision in revisions]
    for experiment in known():
        if not commits or experiment.baseline in commits:
            yield of_experiment(experiment)
    for rev in commits or [commit("HEAD")]:
        yield of_commit(rev)
    if not commits:
        yield of_workspace()


def named(name: str) -> Run | None:
    if name == WORKSPACE:
        return of_workspace()
    found = [experiment for experiment in known() if experiment.name == name]
    if len(found) > 1:
        told = ", ".join(experiment.rev[:7] for experiment in found)
        raise Refusal(f"{len(found)} experiments are called {name}: name one by its commit, {told}")
    if found:
        return of_experiment(found[0])
    rev = resolve(name)
    return of_commit(rev) if rev else None


def resolve(name: str) -> str:
    """The commit that git knows by this name, or nothing."""
    return _git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}").strip()


def known() -> list[Experiment]:
    lines = _git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    found = (EXPERIMENT.fullmatch(line) for line in lines)
    return [Experiment(one["name"], one["rev"], one["begin"] + one["rest"]) for one in found if one]


def commit(revision: str) -> str:
    found = resolve(revision)
    if not found:
        raise Refusal(f"git knows no commit {revision} here")
    return found


def of_experiment(experiment: Experiment) -> Run:
    return _run(experiment.name, experiment.rev, lambda path: taken(experiment.name, _is_here(experiment.rev)))


def taken(experiment: str, here: bool) -> str:
    """How its files come into the workspace; those of other machines' experiments are in DVC's remote at best."""
    if here:
        return f"dvc exp apply {experiment} && dvc checkout {SHIPPED}"
    return f"dvc exp pull origin {experiment} && dvc exp apply {experiment}"


def _is_here(rev: str) -> bool:
    stages = _yaml(rev, "dvc.lock").get("stages", {}).values()
    kept = (out["md5"] for stage in stages for out in stage.get("outs", ()) if out["path"] == SHIPPED)
    return any(map(objects.is_cached, kept))


def of_commit(rev: str) -> Run:
    return _run(rev[:7], rev, lambda path: f"dvc get . {path} --rev {rev[:7]}")


def of_workspace() -> Run:
    return _run(WORKSPACE, "", lambda path: f"it is here: {path}")


def _run(name: str, rev: str, get: Callable[[str], str]) -> Run:
    row = Row(name, rev, FINISHED, False, _yaml(rev, "params.yaml"), {})
    stages = dag(rev)
    metrics: dict[str, Any] = {}
    lacks: dict[str, str] = {}
    for stage in METRICS:
        path = f"metrics/{stage}.json"
        held = content(rev, path) or b""
        if reason := _objection(row, path, stages, hashlib.md5(held, usedforsecurity=False).hexdigest()):
            lacks[stage] = reason
            continue
        try:
            metrics[stage] = json.loads(held)
        except ValueError:
            lacks[stage] = f"{path} is no JSON: `dvc repro -f -s {stage}` with its parameters makes it anew"
    return Run(name, experiments.flat(row.params), metrics, lacks, partial(_fetch, row, stages), get)


def _objection(row: Row, path: str, stages: Mapping[str, Stage], digest: str | None = None) -> str:
    """Why what stands at a path, with this digest where git keeps it, is not what these parameters give."""
    maker = _maker(path, stages)
    if maker is None:
        return f"its dvc.yaml has no {path}: its code is older than that"
    again = f"`dvc repro {maker.name}` with its parameters makes it anew"
    recorded = {out["path"]: out.get("md5") for out in experiments.locked(row.rev).get(maker.name, {}).get("outs", [])}
    stages_behind = [maker, *pipeline.upstream(maker.name, dict(stages))]
    if path not in recorded or not experiments.is_current(row, stages_behind):
        return f"{path} does not belong to its params.yaml and dvc.lock: {again}"
    if digest and digest != recorded[path]:
        return f"{path} is not what dvc.lock says that {maker.name} wrote: {again}"
    return ""


def _fetch(row: Row, stages: Mapping[str, Stage], path: str, folder: Path) -> Path:
    """From DVC's cache or its remote; the workspace has it at its place."""
    if reason := _objection(row, path, stages):
        raise Refusal(f"{row.name}: {reason}")
    if not row.rev:
        return Path(path)
    target = folder / path.replace("/", "-")
    command = [sys.executable, "-m", "dvc", "get", ".", path, "--rev", row.rev, "--out", str(target)]
    if subprocess.run(command, capture_output=True).returncode:
        raise Refusal(
            f"{row.name}: {path} is neither in DVC's cache nor in a remote: `dvc fetch`, or run it again with its "
            "parameters"
        )
    return target


def _maker(path: str, stages: Mapping[str, Stage]) -> Stage | None:
    return next((stage for stage in stages.values() if path in stage.outs), None)


def dag(rev: str) -> Mapping[str, Stage]:
    """As its own dvc.yaml tells them: today's may name other files and parameters."""
    held = content(rev, "dvc.yaml")
    if held is None:
        raise Refusal(f"{rev[:7] or 'this folder'} has no dvc.yaml: name a commit of a project, or go to its folder")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dvc.yaml"
        path.write_bytes(held)
        return pipeline.read(path)


def parameters(rev: str) -> dict[str, Any]:
    return _yaml(rev, "params.yaml")


def _yaml(rev: str, path: str) -> dict[str, Any]:
    try:
        return YAML(typ="safe").load(content(rev, path) or b"") or {}
    except YAMLError as error:
        raise Refusal(f"{path} of {rev[:7] or WORKSPACE} is not YAML") from error


def content(rev: str, path: str) -> bytes | None:
    if not rev:
        return Path(path).read_bytes() if Path(path).is_file() else None
    done = subprocess.run(["git", "show", f"{rev}:./{path}"], capture_output=True)
    return None if done.returncode else done.stdout


def _git(*words: str) -> str:
    """What git says, and nothing where it knows nothing; outside of a repository that is everything."""
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout
