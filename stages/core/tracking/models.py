"""The registry of models that may be shipped: every version says where it comes from, the best is `champion`."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.tracking.events import Register

if TYPE_CHECKING:
    from mlflow import MlflowClient


def register(client: "MlflowClient", run_id: str, path: Path, event: Register) -> None:
    """One version for one piece of work; it is `champion` if no registered model is better, else `challenger`."""
    tags = client.get_run(run_id).data.tags
    origin = {name: tags[name] for name in ("stage_key", "commit", "pipeline")}
    number = _registered(client, event.model, origin["stage_key"])
    if not number:
        number = _add(client, run_id, path, event, origin)
    champion = str(client.get_registered_model(event.model).aliases.get("champion", ""))
    best = client.get_model_version(event.model, champion).tags if champion and champion != number else {}
    alias = "champion" if _beats(event, best) else "challenger"
    client.set_registered_model_alias(event.model, alias, number)


def _beats(event: Register, best: Mapping[str, str]) -> bool:
    """Only on the same val pictures; a smaller file decides between equals; without numbers it is a person's choice."""
    if not best:
        return True
    if event.judged_on != best.get("judged_on"):
        return False
    accuracy, size = float(best.get("accuracy", "inf")), int(best.get("bytes", "0"))
    return event.accuracy > accuracy or (event.accuracy == accuracy and event.bytes <= size)


def _registered(client: "MlflowClient", model: str, key: str) -> str:
    """Asked before a model is written, since a journal may be sent twice and a stage run twice with equal result."""
    for found in client.search_model_versions(f"name = '{model}'"):
        if found.tags.get("stage_key") == key:
            return str(found.version)
    return ""


def _add(client: "MlflowClient", run_id: str, path: Path, event: Register, origin: Mapping[str, str]) -> str:
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
    facts["judged_on"] = event.judged_on
    return str(register_model(logged.model_uri, event.model, tags={**facts, **origin}).version)
