"""Where MLflow shows a point. It is asked aside, so that a server that is slow, broken or absent holds up nobody."""

import os
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpx

PATIENCE = 5.0  # seconds for one answer
PAUSE = 30.0  # seconds after which those are asked for again that were not there: hosts may tell later


class Pages:
    """Addresses by points' names; none where MLflow is a file, which no browser opens."""

    def __init__(self) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self._uri = uri.rstrip("/") if uri.startswith(("http://", "https://")) else ""
        self._found: dict[str, str] = {}
        self._asking: threading.Thread | None = None
        self._asked = float("-inf")

    def of(self, name: str) -> str:
        """As far as it is known."""
        return self._found.get(name, "")

    def look(self, names: Iterable[str]) -> None:
        """Returns at once; what is found is known later."""
        lacking = [name for name in names if name not in self._found]
        busy = self._asking is not None and self._asking.is_alive()
        if self._uri and lacking and not busy and time.monotonic() - self._asked > PAUSE:
            self._asked = time.monotonic()
            self._asking = threading.Thread(target=self._find, args=(lacking,), daemon=True)
            self._asking.start()

    def wait(self, seconds: float) -> None:
        if self._asking is not None:
            self._asking.join(seconds)

    def _find(self, names: Iterable[str]) -> None:
        try:
            with httpx.Client(timeout=PATIENCE, auth=_auth(), headers=_bearer(), follow_redirects=True) as client:
                experiment = self._experiment(client)
                for name in names:
                    if run := self._run(client, experiment, name):
                        self._found[name] = f"{_open(self._uri)}/#/experiments/{experiment}/runs/{run}"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError):
            return  # whatever it answers, it is asked again after a pause

    def _experiment(self, client: httpx.Client) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "lightvision"
        answer = client.get(self._address("experiments/get-by-name"), params={"experiment_name": name})
        return _content(answer)["experiment"]["experiment_id"]

    def _run(self, client: httpx.Client, experiment: str, name: str) -> str:
        """The pipeline's run, which bears the point's name; the newest, should code have changed under the name."""
        wanted = {
            "experiment_ids": [experiment],
            "filter": f"tags.`lightvision.experiment` = '{name}'",
            "order_by": ["attributes.start_time DESC"],
            "max_results": 1,
        }
        runs = _content(client.post(self._address("runs/search"), json=wanted)).get("runs", [])
        return runs[0]["info"]["run_id"] if runs else ""

    def _address(self, verb: str) -> str:
        return f"{self._uri}/api/2.0/mlflow/{verb}"


def _content(answer: httpx.Response) -> Any:
    return answer.raise_for_status().json()


def _auth() -> tuple[str, str] | None:
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return (name, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if name else None


def _bearer() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _open(uri: str) -> str:
    """Without a name and a password, since all read it."""
    return str(httpx.URL(uri).copy_with(userinfo=b"")).rstrip("/")
