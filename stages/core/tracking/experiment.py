"""One experiment of MLflow: its runs found by their tags, and told tags and parameters as MLflow allows them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KIND = {"mlflow.experimentKind": "custom_model_development"}  # without it the page shows what chat models need
AT_ONCE = 100  # that MLflow takes


@dataclass(frozen=True)
class Experiment:
    client: "MlflowClient"
    id: str

    @classmethod
    def open(cls, client: "MlflowClient", name: str) -> "Experiment":
        """Hosts that begin at once each try to make it, and all but one are told that it is there."""
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return cls(client, client.create_experiment(name, tags=KIND))
            except MlflowException:
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        return cls(client, found.experiment_id)

    def search(self, tags: Mapping[str, str]) -> "list[Run]":
        """Runs that were not deleted, oldest first."""
        wanted = " and ".join(f"tags.`{name}` = '{value.replace(chr(39), '')}'" for name, value in tags.items())
        return list(self.client.search_runs([self.id], wanted, order_by=["attributes.start_time ASC"]))

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(proper(name), value[:8000]) for name, value in tags.items()]
        for begin in range(0, len(entries), AT_ONCE):
            self.client.log_batch(run_id, tags=entries[begin : begin + AT_ONCE])

    def params(self, run_id: str, settings: Mapping[str, str]) -> None:
        """MLflow refuses a second value for a parameter, so the first one stays."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        new = [Param(proper(name), value[:6000]) for name, value in settings.items() if proper(name) not in known]
        for begin in range(0, len(new), AT_ONCE):
            self.client.log_batch(run_id, params=new[begin : begin + AT_ONCE])


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
