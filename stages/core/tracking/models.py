"""The registry of models that may be shipped: every version says where it comes from, the best is `champion`."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.running import files
from stages.core.tracking.events import Register

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PLACED = "placed"  # a version was held against the champion; from then on aliases are a person's to move


def register(client: "MlflowClient", run_id: str, path: Path, event: Register, origin: Mapping[str, str]) -> None:
    """One version for one piece of work, `stage_key` in `origin`; a journal that is sent twice moves no alias twice."""
    key = origin["stage_key"]
    if _only(client, event.model, key) is None:
        _add(client, run_id, path, event, {**origin, "sha256": files.digest(path)})
    mine = _only(client, event.model, key)
    if mine and PLACED not in mine.tags:
        _place(client, event.model, str(mine.version))


def _place(client: "MlflowClient", model: str, number: str) -> None:
    """`champion` if no registered model is better, else `challenger`.

    Hosts that register at once read one champion and overwrite each other's: so each looks again after it has written,
    and holds against the champion it knew all that it did not know, or that nobody has yet placed.
    """
    known = {str(one.version) for one in _versions(client, model) if PLACED in one.tags}
    champion = str(client.get_registered_model(model).aliases.get("champion", ""))
    before = client.get_model_version(model, champion) if champion else None
    seen: list[str] = []
    while new := [one for one in _versions(client, model) if str(one.version) not in {*known, *seen}]:
        seen += [str(one.version) for one in new]
        for one in new:
            before = one if before is None or _beats(one.tags, before.tags) else before
        champion = str(before.version) if before else champion
        client.set_registered_model_alias(model, "champion", champion)
    alias = "champion" if champion == number else "challenger"
    client.set_registered_model_alias(model, alias, number)
    client.set_model_version_tag(model, number, PLACED, alias)


def _beats(one: Mapping[str, str], best: Mapping[str, str]) -> bool:
    """Only on the same val pictures; a smaller file decides between equals; without numbers it is a person's choice."""
    if one["judged_on"] != best.get("judged_on"):
        return False
    accuracy, size = float(best.get("accuracy", "inf")), int(best.get("bytes", "0"))
    mine = float(one["accuracy"])
    return mine > accuracy or (mine == accuracy and int(one["bytes"]) <= size)


def _versions(client: "MlflowClient", model: str) -> "list[ModelVersion]":
    """The oldest first; without the gates' numbers it is none of ours."""
    found = [one for one in client.search_model_versions(f"name = '{model}'") if "judged_on" in one.tags]
    return sorted(found, key=lambda one: int(one.version))


def _only(client: "MlflowClient", model: str, key: str) -> "ModelVersion | None":
    """Two hosts with one piece of work may both have added it: the first stays, since numbers are the server's."""
    found = [one for one in _versions(client, model) if one.tags.get("stage_key") == key]
    for other in found[1:]:
        client.delete_model_version(model, str(other.version))
    return found[0] if found else None


def _add(client: "MlflowClient", run_id: str, path: Path, event: Register, origin: Mapping[str, str]) -> None:
    import mlflow.onnx as flavor
    import onnx
    from mlflow import register_model
    from mlflow.models import Model

    requirements = [f"{name}=={version(name)}" for name in ("onnx", "onnxruntime", "numpy")]
    run = client.get_run(run_id)
    model = client.create_logged_model(run.info.experiment_id, event.artifact, run_id, params=run.data.params)
    logged = Model.log(  # not mlflow.onnx.log_model, which would end the run that it writes to
        artifact_path=None,
        name=event.artifact,
        model_id=model.model_id,  # MLflow itself would put it into the experiment "Default"
        flavor=flavor,
        run_id=run_id,
        onnx_model=onnx.load(path),
        save_as_external_data=False,
        pip_requirements=requirements,  # stated, because MLflow would start the model to find them out
    )
    facts = {"accuracy": str(event.accuracy), "bytes": str(event.bytes), "gates": json.dumps(event.gates)}
    facts |= {"judged_on": event.judged_on, "artifact": f"{event.artifact}/{event.file}"}
    register_model(logged.model_uri, event.model, tags={**facts, **origin})
