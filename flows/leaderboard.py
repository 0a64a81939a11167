"""A sweep's points as a table in Prefect's UI, which grows as they finish."""

import json
import time
from collections.abc import Mapping
from typing import Any

import httpx
from prefect import get_client, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.core.coordinator import Coordinator

PAUSE = 10.0  # seconds between two tables


class Leaderboard:
    """Shows what changed, not too often; a table that cannot be shown fails nothing."""

    def __init__(self, name: str) -> None:
        self._key = key(name)
        self._shown: list[dict[str, Any]] = []
        self._when = float("-inf")

    def show(self, coordinator: Coordinator, last: bool = False) -> None:
        if not last and time.monotonic() - self._when < PAUSE:
            return
        table = rows(coordinator)
        if table == self._shown:
            return
        try:
            create_table_artifact(table, key=self._key, description=f"Points of {coordinator.name}")
        except httpx.HTTPError as error:
            get_run_logger().warning(f"the table is not shown: {error}")
            return
        self._shown, self._when = table, time.monotonic()


def key(name: str) -> str:
    return f"sweep-{name}".replace("_", "-")


def rows(coordinator: Coordinator) -> list[dict[str, Any]]:
    return [
        {"point": name, "seed": point.asked.seed, "state": point.fate.value, "reason": point.reason}
        for name, point in coordinator.points.items()
    ]


def reasons(name: str) -> Mapping[str, str]:
    """Why points failed, as the newest table of a sweep says."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key(name)])), limit=1)
    table = json.loads(str(found[0].data)) if found else []
    return {row["point"]: row["reason"] for row in table if row["reason"]}
