"""What a commit is worth: the key each stage has there, and which results are proven by git and dvc.lock alone.

DVC believes what it finds on a disk; a coordinator has none, and believes no worker's word.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import Any

from ruamel.yaml import YAML, YAMLError

from flows.core import contents, lock
from flows.core.repository import Repository
from lightvision.experiments import MISSING, reach
from stages.core.running import pipeline
from stages.core.running.errors import Refusal
from stages.core.running.pipeline import Stage

DAG, PARAMS = "dvc.yaml", "params.yaml"
UNDERSTOOD = {"cmd", "desc", "deps", "meta", "metrics", "outs", "params", "plots"}


def stages(repository: Repository, rev: str) -> dict[str, Stage]:
    """Those of the commit's dvc.yaml."""
    return _stages(_text(repository, rev, DAG))


def makers(known: Mapping[str, Stage]) -> dict[str, dict[str, frozenset[str]]]:
    """For each stage its deps that stages make, and who makes them; a folder may hold the outs of several."""
    by: dict[str, set[str]] = {}
    for name, stage in known.items():
        for out in stage.outs:
            for path in (out, *map(str, PurePosixPath(out).parents)):
                by.setdefault(path, set()).add(name)
    return {name: {dep: frozenset(by[dep]) for dep in sorted(stage.deps & by.keys())} for name, stage in known.items()}


def parents(known: Mapping[str, Stage]) -> dict[str, frozenset[str]]:
    """Each stage after those whose outs it reads."""
    by = {name: sorted(frozenset[str]().union(*made.values())) for name, made in makers(known).items()}
    try:
        return {name: frozenset(by[name]) for name in TopologicalSorter(by).static_order()}
    except CycleError as error:
        raise Refusal(f"{DAG} goes round in a circle: {' -> '.join(error.args[1])}") from error


def wanted(known: Mapping[str, Stage], targets: Iterable[str]) -> list[str]:
    """The targets and all that they need, in dvc.yaml's order."""
    before, found, waiting = parents(known), set[str](), list(targets)
    while waiting:
        name = waiting.pop()
        if name not in known:
            raise Refusal(f"{DAG} has no stage {name}; it has {', '.join(known)}")
        if name not in found:
            found.add(name)
            waiting += before[name]
    return [name for name in known if name in found]


def keys(repository: Repository, rev: str, params_text: str | None = None) -> dict[str, str]:
    """What each stage would be made of with these parameters, or the commit's own; known before anything runs."""
    known = stages(repository, rev)
    ground = _ground(repository, repository.sha(rev))
    values = parameters(_text(repository, rev, PARAMS) if params_text is None else params_text)
    made = makers(known)
    found: dict[str, str] = {}
    for name in parents(known):
        entries = {entry: _value(values, entry, name) for entry in known[name].params}
        by = {dep: sorted(found[maker] for maker in names) for dep, names in made[name].items()}
        text = json.dumps([known[name].cmd, ground[name], entries, by], sort_keys=True, default=str)
        found[name] = hashlib.sha256(text.encode()).hexdigest()
    return {name: found[name] for name in known}


@lru_cache(maxsize=64)
def _ground(repository: Repository, sha: str) -> dict[str, dict[str, str | None]]:
    """md5 sums of what each stage reads that no stage makes; of a folder of outs, what else is in it."""
    known = stages(repository, sha)
    outs = frozenset(out for stage in known.values() for out in stage.outs)
    return {
        name: {dep: _source(repository, sha, name, dep) for dep in known[name].deps - made.keys()}
        | {dep: contents.md5(repository, sha, dep, outs) for dep in made.keys() - outs}
        for name, made in makers(known).items()
    }


def proven(repository: Repository, rev: str) -> dict[str, str]:
    """Keys of the stages whose entries in dvc.lock agree with all else in the commit, and with their proven makers."""
    every, doubted = keys(repository, rev), doubts(repository, rev)
    return {name: key for name, key in every.items() if name not in doubted}


def doubts(repository: Repository, rev: str) -> dict[str, str]:
    """Why the other stages are not proven."""
    rev = repository.sha(rev)
    known, noted = stages(repository, rev), entries(repository, rev)
    values = parameters(_text(repository, rev, PARAMS))
    made = {out["path"]: out.get("md5") for entry in noted.values() for out in entry["outs"]}
    sight = Sight(repository, rev, known, values, made)
    found: dict[str, str] = {}
    for name, before in parents(known).items():
        if name not in noted:
            found[name] = f"{lock.NAME} does not know it"
        elif behind := sorted(before & found.keys()):
            found[name] = f"{behind[0]} is not proven"
        elif reason := next(sight.doubts(known[name], noted[name]), ""):
            found[name] = reason
    return found


def blocks(repository: Repository, rev: str) -> dict[str, str]:
    """The commit's dvc.lock, one piece for each stage."""
    return lock.split((repository.read(rev, lock.NAME) or b"").decode(), rev)


def entries(repository: Repository, rev: str) -> dict[str, Mapping[str, Any]]:
    return {name: lock.entry(block, rev) for name, block in blocks(repository, rev).items()}


@lru_cache(maxsize=4096)
def parameters(text: str) -> Mapping[str, Any]:
    """As DVC reads them."""
    try:
        return YAML(typ="safe").load(text) or {}
    except YAMLError as error:
        raise Refusal(f"{PARAMS} is not YAML: {error}") from error


@dataclass(frozen=True)
class Sight:
    """A commit, as far as doubts need it; `made` are md5 sums of outs in dvc.lock."""

    repository: Repository
    rev: str
    known: Mapping[str, Stage]
    values: Mapping[str, Any]
    made: Mapping[str, str | None]

    def doubts(self, stage: Stage, entry: Mapping[str, Any]) -> Iterator[str]:
        """Of a stage whose makers are proven."""
        if entry["cmd"] != stage.cmd:
            yield "it ran as another command"
        for kind, paths in (("deps", stage.deps), ("outs", stage.outs)):
            if {one["path"] for one in entry[kind]} != paths:
                yield f"it ran with other {kind}"
        values = {name: reach(self.values, name) for name in stage.params}
        if entry["params"] != ({PARAMS: values} if values else {}):
            yield "it ran with other parameters"
        for dep in entry["deps"]:
            if self._now(dep["path"]) not in {dep.get("md5")} - {None}:
                yield f"{dep['path']} is not what it read"
        for out in entry["outs"]:
            if "md5" not in out:
                yield f"nobody knows what {out['path']} was"
            elif out["path"] in stage.kept and self._md5(out["path"]) != out["md5"]:
                yield f"{out['path']} is not what it made"

    def _now(self, path: str) -> str | None:
        if path in self.made:
            return self.made[path]
        return _added(self.repository, self.rev, path) or self._md5(path)

    def _md5(self, path: str) -> str | None:
        """Of what git holds; of what it holds but in part, nobody can tell."""
        kept = [out in stage.kept for stage in self.known.values() for out in stage.outs if holds(path, out)]
        return contents.md5(self.repository, self.rev, path) if all(kept) else None


def _source(repository: Repository, rev: str, stage: str, dep: str) -> str:
    found = _added(repository, rev, dep) or contents.md5(repository, rev, dep)
    if found is None:
        raise Refusal(
            f"{stage} reads {dep}, which is not in commit {rev[:10]} and made by no stage:"
            f" `git add` or `dvc add` it, and commit"
        )
    return found


def _added(repository: Repository, rev: str, path: str) -> str | None:
    """What `dvc add` noted."""
    noted = repository.read(rev, f"{path}.dvc")
    return None if noted is None else str(YAML(typ="safe").load(noted.decode())["outs"][0]["md5"])


def _value(values: Mapping[str, Any], entry: str, stage: str) -> Any:
    found = reach(values, entry)
    if found is MISSING:
        raise Refusal(f"{PARAMS} has no {entry}, which {stage} reads")
    return found


def holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _text(repository: Repository, rev: str, path: str) -> str:
    found = repository.read(rev, path)
    if found is None:
        raise Refusal(f"{path} is not in commit {rev[:10]}: commit it")
    return found.decode()


@lru_cache(maxsize=256)
def _stages(text: str) -> dict[str, Stage]:
    """Refuses what DVC knows and we do not, since results would be believed that nobody proved."""
    try:
        content = YAML(typ="safe").load(text)
        found = {name: pipeline.stage(name, told) for name, told in content["stages"].items()}
        strange = [f"{name}: {word}" for name, told in content["stages"].items() for word in told.keys() - UNDERSTOOD]
    except (YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise Refusal(f"{DAG} has no stages with commands of their own that can be read: {error}") from error
    strange += ["${}"] if "${" in text else []
    strange += [f"{name}: pool {stage.pool}" for name, stage in found.items() if stage.pool not in pipeline.POOLS]
    strange += [
        f"{name}: {entry}" for name, stage in found.items() for entry in stage.params if not isinstance(entry, str)
    ]
    outs = {out for stage in found.values() for out in stage.outs}
    strange += [
        f"{name}: {dep} in {out}"
        for name, stage in found.items()
        for dep in sorted(stage.deps)
        for out in sorted(outs)
        if dep != out and holds(out, dep)
    ]
    if strange:
        raise Refusal(f"{DAG} says {strange[0]}, which runs on one machine only: write it out, or use `dvc repro`")
    return found
