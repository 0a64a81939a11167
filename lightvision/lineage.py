"""`lightvision lineage`: where a file comes from, as far as digests prove it, and how to make it again."""

import argparse
import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvision import ancestry, experiments, objects, recorded, remembered, revisions
from lightvision.objects import Objects
from lightvision.recorded import Record
from lightvision.runs import SHIPPED
from stages.core.lineage import PARENTS
from stages.core.running import files
from stages.core.running.errors import Refusal

if TYPE_CHECKING:
    from mlflow.entities import Run as Entry
    from mlflow.entities.model_registry import ModelVersion

    from lightvision.remembered import Memory

MODEL = re.compile(r"(?P<name>lightvision-[\w-]+)(?:@(?P<alias>\w+)|/(?P<number>\d+))?")
CHAMPION = "quantized.onnx"
MODELS = "models"


@dataclass(frozen=True)
class Subject:
    """What was asked for: where it lies if it is here, where git records it, what MLflow says of it."""

    name: str
    md5: str = ""
    sha256: str = ""
    bytes: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    record: Record | None = None


def add(members: Any, action: str) -> None:
    text = (
        "Tell where a file, a registered model or a run comes from: models it was made from, commit, data, parameters, "
        "and the commands that make it again. Exit status 1 where nobody recorded it, or digests do not agree."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument("name", metavar="FILE|MODEL|RUN", help=WHAT)
    parser.add_argument("--json", action="store_true", help="all that is known, with every parameter")
    parser.add_argument("--no-mlflow", action="store_true", help="do not ask MLflow")
    parser.set_defaults(run=run)


WHAT = (
    "a file or a model's folder anywhere; lightvision-DATASET, with @champion or /3 behind it; an experiment, a commit "
    "or the id of a run of MLflow"
)


def run(name: str, json: bool, no_mlflow: bool) -> int:
    kept = Objects()
    with tempfile.TemporaryDirectory() as folder:
        found = tell(find(name, kept, Path(folder)), kept, ask=not no_mlflow)
    if json:
        print(dumps(found))
    else:
        ancestry.show(found)
    return 0 if found["recorded"] and False not in found["checks"].values() else 1


def dumps(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False, default=str)


def find(name: str, kept: Objects, folder: Path) -> Subject:
    """A path first, since that is what lies before one; what MLflow keeps is fetched, and known by its content."""
    if Path(name).exists():
        return of_path(name, Path(name), kept)
    if found := MODEL.fullmatch(name):
        memory = remembered.remember(None)
        version = _version(memory, found["name"], found["alias"] or "champion", found["number"])
        if not version.run_id:
            raise Refusal(f"{name} was registered without a run: nobody knows where it comes from")
        artifact = version.tags.get("artifact", f"shipped/{CHAMPION}")
        return _of_artifact(name, memory, version.run_id, artifact, kept, folder)
    rev = next((one.rev for one in revisions.known() if one.name == name), "") or revisions.resolve(name)
    if rev:
        return _of_commit(name, rev, kept)
    return _of_run(name, kept, folder)


def of_path(name: str, path: Path, kept: Objects) -> Subject:
    inside = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    if not inside:
        raise Refusal(f"{name} is an empty folder: name a file that was shipped, or a model's folder")
    size, md5 = sum(file.stat().st_size for file in inside), objects.of_path(path)
    return Subject(name, md5, files.digest(path), size, metadata(path), recorded.first(md5, size, kept))


def metadata(path: Path) -> dict[str, Any]:
    """What the thing says of itself; nothing where it is neither a file of ours nor a model's folder."""
    if path.is_dir():
        card = path / "model.json"
        return _card(card.read_bytes()) if card.is_file() else {}
    import onnx
    from google.protobuf.message import DecodeError

    try:
        props = onnx.load(path, load_external_data=False).metadata_props
    except (DecodeError, OSError, ValueError):
        return {}
    return {prop.key: prop.value for prop in props}


def _card(content: bytes) -> dict[str, Any]:
    try:
        card = json.loads(content)
        return {"dataset": card["facts"]["dataset"], "parents": card["parents"]}
    except (ValueError, KeyError, TypeError):
        return {}


def _of_commit(name: str, rev: str, kept: Objects) -> Subject:
    record = recorded.at(rev, SHIPPED, CHAMPION, kept)
    if record is None:
        raise Refusal(f"{name}: dvc.lock of {rev[:7]} tells of no {SHIPPED}: its pipeline did not come so far")
    md5 = record.outs[SHIPPED][1]["md5"] if record.outs else ""
    content = kept.file(md5, record.file) if record.file else None
    if content is None:
        return Subject(name, md5, record=Record(rev, SHIPPED, "", record.maker))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / record.file
        path.write_bytes(content)
        return Subject(name, objects.of_path(path), files.digest(path), len(content), metadata(path), record)


def _of_run(name: str, kept: Objects, folder: Path) -> Subject:
    unknown = f"{name!r} is no file here, no model (lightvision-...), no experiment and no commit"
    try:
        memory = remembered.remember(None)
    except Refusal as refusal:
        raise Refusal(f"{unknown}; {refusal}") from refusal
    fitting = [entry for run_id, entry in memory.entries.items() if run_id.startswith(name)]
    if len(fitting) != 1:
        raise Refusal(f"{unknown}, and {len(fitting)} runs of MLflow have ids that begin so")
    parent = memory.entries.get(fitting[0].data.tags.get("mlflow.parentRunId", ""), fitting[0])
    child = memory.child(parent, "export")
    if child is None:
        raise Refusal(f"{name}: MLflow knows no finished export of this run, so it shipped nothing")
    return _of_artifact(name, memory, child.info.run_id, f"shipped/{CHAMPION}", kept, folder)


def _version(memory: "Memory", name: str, alias: str, number: str | None) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        if number:
            return memory.client.get_model_version(name, number)
        return memory.client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        raise Refusal(f"MLflow: {memory.uri} has no {name}{f'/{number}' if number else f'@{alias}'}") from error


def _of_artifact(name: str, memory: "Memory", run_id: str, artifact: str, kept: Objects, folder: Path) -> Subject:
    try:
        path = Path(memory.client.download_artifacts(run_id, artifact, str(folder)))
    except Exception as error:  # the store's own library may raise anything
        raise Refusal(f"{name}: MLflow keeps no {artifact} of its run {run_id[:8]} any more") from error
    return of_path(name, path, kept)


def tell(subject: Subject, kept: Objects, ask: bool) -> dict[str, Any]:
    record = subject.record
    told: dict[str, Any] = {
        "asked": subject.name,
        "file": {"sha256": subject.sha256, "md5": subject.md5, "bytes": subject.bytes},
        "says of itself": dict(subject.metadata),
        "recorded": bool(record),
        "checks": {},
        "made": {},
        "chain": [],
        "data": {"name": subject.metadata.get("dataset", "unknown")},
        "parameters": {},
        "gates": {},
        "commands": [],
    }
    if record:
        told["made"] = _made(record)
        told["chain"] = chain(record, kept)
        told["checks"] = _checks(subject, record, told["chain"])
        told["data"] |= _data(record, kept)
        told |= _parameters(record)
        told["gates"] = _gates(record)
        told["commands"] = commands(record)
    told["mlflow"] = _memory(subject, told["chain"]) if ask else {"unknown": "not asked"}
    return told


def _made(record: Record) -> dict[str, Any]:
    experiment = record.experiment
    return {
        "commit": record.rev or "not committed: dvc.lock of this folder alone tells of it",
        "experiment": experiment.name if experiment else "",
        "baseline": experiment.baseline if experiment else record.rev,
        "dvc.lock": hashlib.sha256(revisions.content(record.rev, "dvc.lock") or b"").hexdigest(),
        "path": f"{record.path}/{record.file}".rstrip("/"),
        "stage": record.maker,
        "other code": ", ".join(record.of_its_code() if record.rev else []),
    }


def chain(record: Record, kept: Objects) -> list[dict[str, Any]]:
    """From the file's own model to the first one, by the digests that each model keeps of those before it."""
    made = record.outs
    shipped = Path(record.file or CHAMPION).stem.removesuffix("-portable")
    name = shipped if record.path == SHIPPED else Path(record.path).name
    found: list[dict[str, Any]] = []
    while (place := f"{MODELS}/{name}") in made:
        stage, out = made[place]
        content = kept.file(out["md5"], "model.json")
        parents = _card(content).get("parents") if content else None
        sha256 = hashlib.sha256(content).hexdigest() if content else None
        found.append({"model": name, "stage": stage, "md5": out["md5"], "sha256": sha256, "parents": parents})
        name = PARENTS.get(name, "")
    return found


def _checks(subject: Subject, record: Record, made_from: list[dict[str, Any]]) -> dict[str, bool | None]:
    """What could be held against something else; what is unknown was not."""
    checks: dict[str, bool | None] = {
        "its content is what dvc.lock records": True,
        "params.yaml of the commit is what the stages were given": record.of_its_parameters(),
        "code of the commit is what the stages ran": not record.of_its_code() if record.rev else None,
    }
    if not subject.sha256:
        checks["its content is what dvc.lock records"] = None
    if "model" in subject.metadata and made_from:
        head = made_from[0]
        known = head["sha256"] and head["sha256"] == subject.metadata["model"]
        checks[f"the file says it is of {head['model']}"] = known if head["sha256"] else None
    for model, parent in itertools.pairwise(made_from):
        claimed = (model["parents"] or {}).get(parent["model"])
        known = claimed == parent["sha256"] if claimed and parent["sha256"] else None
        checks[f"{model['model']} says it is of {parent['model']}"] = known
    return checks


def _data(record: Record, kept: Objects) -> dict[str, Any]:
    made = {path: out["md5"] for path, (_, out) in record.outs.items() if path.startswith("data/")}
    found: dict[str, Any] = {"md5": made}
    if "data/manifest.csv" in made:
        content = kept.content(made["data/manifest.csv"])
        found["manifest sha256"] = hashlib.sha256(content).hexdigest() if content else "unknown"
    counted = revisions.content(record.rev, "metrics/prepare.json")
    recorded_as = record.outs.get("metrics/prepare.json", ("", {}))[1].get("md5")
    if counted and hashlib.md5(counted, usedforsecurity=False).hexdigest() == recorded_as:
        found["pictures"] = json.loads(counted)["pictures"]
    return found


def _parameters(record: Record) -> dict[str, Any]:
    """As the stages were given them; what the baseline's params.yaml has otherwise stands by itself."""
    given: dict[str, Any] = {}
    for stage in record.stages:
        given |= experiments.flat(dict(record.lock.get(stage.name, {}).get("params", {}).get("params.yaml", {})))
    experiment = record.experiment
    usual = experiments.flat(revisions.parameters(experiment.baseline if experiment else record.rev))
    changed = {name: [usual.get(name), value] for name, value in given.items() if usual.get(name) != value}
    return {"parameters": given, "changed": changed}


def _gates(record: Record) -> dict[str, Any]:
    """Export writes nothing that does not pass, so what it recorded passed its limits."""
    limits = record.lock.get("export", {}).get("params", {}).get("params.yaml", {}).get("export", {})
    measured = json.loads(revisions.content(record.rev, "metrics/export.json") or b"{}")
    return {"limits": dict(limits), "measured": measured.get(Path(record.file).stem, {})} if limits else {}


def commands(record: Record) -> list[str]:
    """What a person types to have it again: from DVC's cache or remote, then by running it; experiments are commits."""
    if not record.rev:
        return ["git add -A && git commit", f"dvc repro {record.maker}"]
    return [f"git checkout {record.rev}", f"dvc pull {record.path}", f"dvc repro --force {record.maker}"]


def _memory(subject: Subject, made_from: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs that made it, found by digests: a version's of the file, or those of the models which a run read."""
    try:
        memory = remembered.remember(None)
    except Refusal as refusal:
        return {"unknown": str(refusal)}
    versions = [one for one in _every_version(memory) if subject.sha256 and one.tags.get("sha256") == subject.sha256]
    runs = [entry for one in versions if (entry := memory.entries.get(one.run_id or ""))]
    head = made_from[0] if made_from else {"model": "", "sha256": None}
    if head["sha256"] and not runs:
        tag = f"input.{head['model']}"
        runs = [one for one in memory.entries.values() if one.data.tags.get(tag) == head["sha256"]]
    if not runs:
        return {"unknown": f"{memory.uri} remembers no run with these digests"}
    return {
        "runs": {one.info.run_id: _told(memory, one) for one in runs},
        "versions": [_numbered(memory, one) for one in versions],
    }


def _every_version(memory: "Memory") -> "list[ModelVersion]":
    return list(memory.client.search_model_versions("name LIKE 'lightvision-%'"))


def _numbered(memory: "Memory", version: "ModelVersion") -> dict[str, Any]:
    aliases = memory.client.get_registered_model(version.name).aliases
    mine = sorted(alias for alias, number in aliases.items() if str(number) == str(version.version))
    return {"model": f"{version.name}/{version.version}", "aliases": mine, "tags": dict(version.tags)}


def _told(memory: "Memory", run: "Entry") -> dict[str, Any]:
    parent = memory.entries.get(run.data.tags.get("mlflow.parentRunId", ""), run)
    links = {name: value for name, value in parent.data.tags.items() if name.startswith("stage.")}
    names = ("lightvision.stage", "host", "commit", "experiment", "flow_run")
    own = {name: run.data.tags[name] for name in names if name in run.data.tags}
    return own | {"pipeline": parent.info.run_id} | links
