"""DVC's experiments as rows that can be compared: parameters, metrics, and whether the one belongs to the other."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from stages.core.running import pipeline
from stages.core.running.errors import Refusal
from stages.core.running.pipeline import Stage

FINISHED = "success"
MISSING = object()
NAMED = 4  # slashes in refs/exps/<two digits>/<commit>/<name>; others are DVC's own


@dataclass(frozen=True)
class Row:
    """One line of `dvc exp show`; `rev` is empty for the workspace, a baseline was not made by an experiment."""

    name: str
    rev: str
    state: str
    baseline: bool
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]


def read(revisions: Sequence[str]) -> list[Row]:
    """Those of HEAD if no revision is given, and the workspace."""
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    for revision in revisions:
        command += ["--rev", revision]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if line.startswith("ERROR")]
        raise Refusal(f"`dvc exp show` does not work here: {lines[0] if lines else found.stderr[-300:]}")
    try:
        return list(rows(json.loads(found.stdout)))
    except json.JSONDecodeError as error:
        raise Refusal(f"`dvc exp show --json` says something that is no JSON: {found.stdout[:100]!r}") from error


def rows(shown: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Experiments before baselines, the workspace last: where two are one run, the first has the better name."""
    for baseline in shown:
        for experiment in baseline.get("experiments") or []:
            executor = experiment.get("executor") or {"state": FINISHED}  # it ran in the workspace
            newest = (experiment.get("revs") or [{}])[0]
            yield _row(experiment.get("name"), executor.get("state") or "unknown", newest, baseline=False)
    for baseline in sorted(shown, key=lambda one: one.get("rev") == "workspace"):
        yield _row(baseline.get("name"), FINISHED, baseline, baseline=True)


def _row(name: str | None, state: str, entry: Mapping[str, Any], baseline: bool) -> Row:
    """A file that DVC could not read has an error in the place of its data."""
    data, rev = entry.get("data") or {}, (entry.get("rev") or "").replace("workspace", "")
    params: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for path, content in (data.get("params") or {}).items():
        found = content.get("data") or {}
        params |= found if path == "params.yaml" else {Path(path).stem: found}
    for path, content in (data.get("metrics") or {}).items():
        metrics |= flat(content.get("data") or {}, f"{Path(path).stem}.")
    return Row(name or rev[:7] or "workspace", rev, state, baseline, params, metrics)


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Everything that is no mapping, by its dotted name."""
    if not isinstance(content, dict):
        return {prefix.rstrip("."): content}
    return {name: leaf for key, value in content.items() for name, leaf in flat(value, f"{prefix}{key}.").items()}


def nodes(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names, those of whole sections and methods too."""
    for key, value in content.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from nodes(value, f"{prefix}{key}.")


def reach(content: Any, name: str) -> Any:
    """What stands under a dotted name, or MISSING."""
    for part in name.split("."):
        content = content.get(part, MISSING) if isinstance(content, dict) else MISSING
    return content


def makers(metric: str) -> list[Stage]:
    """The stage that writes a metric and all that it depends on; none if dvc.yaml knows no such file."""
    stages = pipeline.read()
    wanted = f"{metric.partition('.')[0]}.json"
    for name, stage in stages.items():
        if any(Path(out).name == wanted for out in stage.outs):
            return [stage, *pipeline.upstream(name, stages)]
    return []


def is_current(row: Row, stages: Sequence[Stage]) -> bool:
    """Whether dvc.lock says that each of the stages ran with these parameters, on what the others had made.

    An experiment with a target leaves later metrics as they were, and so does a params.yaml that was only edited.
    """
    lock = locked(row.rev)
    made = {out["path"]: out.get("md5") for ran in lock.values() for out in ran.get("outs", [])}
    return all(stage.name in lock and _is_current(lock[stage.name], stage, row.params, made) for stage in stages)


def _is_current(ran: Mapping[str, Any], stage: Stage, params: Mapping[str, Any], made: Mapping[str, str]) -> bool:
    recorded = ran.get("params", {}).get("params.yaml", {})
    return all(recorded.get(entry, MISSING) == reach(params, entry) for entry in stage.params) and all(
        made.get(dep["path"], dep.get("md5")) == dep.get("md5") for dep in ran.get("deps", [])
    )


@cache
def locked(rev: str) -> Mapping[str, Any]:
    """The stages of dvc.lock in a commit, or in the workspace."""
    if rev:
        text = subprocess.run(["git", "show", f"{rev}:dvc.lock"], capture_output=True, text=True).stdout
    else:
        text = Path("dvc.lock").read_text(encoding="utf-8") if Path("dvc.lock").is_file() else ""
    try:
        return (YAML(typ="safe").load(text) or {}).get("stages", {})
    except YAMLError as error:
        raise Refusal(f"dvc.lock of {rev or 'the workspace'} cannot be read: `dvc repro` writes it anew") from error


def ever(needed: Sequence[Stage]) -> list[Row]:
    """Experiments of any commit, finished, that ran the very code which HEAD has of these stages."""
    code = sorted({dep for stage in needed for dep in stage.deps if dep.startswith("stages/")})
    here = _objects("HEAD", code)
    found = _git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    refs = [line.split() for line in found if line.count("/") == NAMED]
    same = ((ref.rpartition("/")[2], rev) for ref, rev in refs if _objects(rev, code) == here)
    paths = tuple(sorted(out for stage in needed for out in stage.outs if out.endswith(".json")))
    rows = (_committed(name, rev, paths) for name, rev in same)
    return [row for row in rows if is_current(row, needed)]


def uncommitted(needed: Sequence[Stage]) -> list[str]:
    """Files of these stages' code that HEAD has otherwise: an experiment with them could not be told from another."""
    code = {dep for stage in needed for dep in stage.deps if dep.startswith("stages/")}
    return [line[3:] for line in _git("status", "--porcelain", "--", "dvc.yaml", *sorted(code)).splitlines()]


def _objects(rev: str, code: Sequence[str]) -> str:
    return _git("ls-tree", rev, "--", *code)


@cache
def _committed(name: str, rev: str, paths: tuple[str, ...]) -> Row:
    """As `dvc exp show` would tell it, at a hundredth of its time; a commit stays what it is."""
    metrics: dict[str, Any] = {}
    for path in paths:
        text = _git("show", f"{rev}:{path}")
        metrics |= flat(json.loads(text) if text else {}, f"{Path(path).stem}.")
    params = YAML(typ="safe").load(_git("show", f"{rev}:params.yaml")) or {}
    return Row(name, rev, FINISHED, baseline=False, params=params, metrics=metrics)


def _git(*words: str) -> str:
    """Nothing where git has no such thing."""
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout


def head() -> str:
    return _git("rev-parse", "HEAD").strip()
