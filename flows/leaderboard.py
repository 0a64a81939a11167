"""A sweep's points as a table in Prefect's UI, which grows as they finish."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from prefect.runtime import flow_run

from flows.core import standings
from flows.core.coordinator import Coordinator, Fate, Point
from flows.core.pages import Pages
from flows.core.standings import Pace, Standing, Summary, Worth
from stages.core import words

TYPE = "table"
TABLE, FAILED = "sweep-", "failed-"  # begin the artifacts' keys; a sweep's name follows
PAUSE = 10.0  # seconds between two tables
AGAIN = 60.0  # seconds after which the time that is left is told anew
ROWS = 200  # that a browser still shows well
LAST = 3.0  # seconds in which MLflow may still say where its pages are
ABOUT = (
    "Accuracy is of val; test is for the report, since who sees it chooses by it. Bytes and milliseconds "
    "(one thread, one picture, median and interval) are of the last file that a point ships."
)


class Leaderboard:
    """Shows what changed, not too often; a table that cannot be shown fails nothing."""

    def __init__(self, name: str) -> None:
        self._name = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
        self._pages, self._pace = Pages(), Pace()
        self._worth: dict[str, Worth] = {}
        self._made: dict[str, UUID] = {}
        self._shown: list[dict[str, Any]] = []
        self._looked = self._wrote = float("-inf")

    def show(self, coordinator: Coordinator, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._looked < PAUSE:
            return
        self._looked = now
        self._pace.see(coordinator.done, now)
        found = standings.standings(coordinator, lambda name, point: self._once(coordinator, name, point))
        self._pages.look([one.point for one in found[:ROWS] if one.group is standings.Group.FINISHED])
        if last:
            self._pages.wait(LAST)
        table = rows(found[:ROWS], self._pages)
        if last or table != self._shown or now - self._wrote > AGAIN:
            self._shown, self._wrote = table, now
            self._write(coordinator, standings.summary(coordinator, found, self._pace, now))

    def _once(self, coordinator: Coordinator, name: str, point: Point) -> Worth:
        if name not in self._worth:
            repository = coordinator.repository
            self._worth[name] = standings.worth(lambda path: repository.read(point.rev, path), point.asked.keys)
        return self._worth[name]

    def _write(self, coordinator: Coordinator, summary: Summary) -> None:
        reasons = failures(coordinator)
        told = (
            summary.told,
            f"The first {ROWS} are shown." if summary.all > ROWS else "",
            f"Why points failed: {FAILED}{self._name}." if reasons else "",
            ABOUT,
        )
        try:
            if reasons:
                self._put(FAILED, reasons, summary.counts, {})
            self._put(TABLE, self._shown, "\n\n".join(filter(None, told)), told_to_watch(summary))
        except httpx.HTTPError as error:
            get_run_logger().warning(f"the table is not shown: {error}")
            self._made.clear()

    def _put(self, kind: str, table: Sequence[Mapping[str, Any]], description: str, facts: dict[str, str]) -> None:
        """The same artifact as long as a coordinator lives: a server would keep a version for each change."""
        content = {"data": json.dumps(table), "description": description, "metadata_": facts}
        with get_client(sync_client=True) as client:
            if kind in self._made:
                client.update_artifact(self._made[kind], ArtifactUpdate(**content))
                return
            run = UUID(flow_run.id) if flow_run.id else None
            new = ArtifactCreate(key=f"{kind}{self._name}", type=TYPE, flow_run_id=run, **content)
            self._made[kind] = client.create_artifact(new).id


def rows(found: Sequence[Standing], pages: Pages) -> list[dict[str, Any]]:
    """Numbers first: a browser shows the left of a wide table. Addresses are bare, since not all of its pages know
    Markdown in tables."""
    linked = any(pages.of(one.point) for one in found)
    return [
        {
            "point": one.point,
            "val accuracy": "" if one.worth.accuracy is None else words.percent(one.worth.accuracy),
            "bytes": "" if one.worth.bytes is None else words.whole(one.worth.bytes),
            "milliseconds": one.worth.milliseconds,
            "state": one.state,
            "what": one.about,
            **({"MLflow": pages.of(one.point)} if linked else {}),
        }
        for one in found
    ]


def failures(coordinator: Coordinator) -> list[dict[str, str]]:
    failed = {name: point.reason for name, point in coordinator.points.items() if point.fate is Fate.FAILED}
    return [{"point": name, "reason": reason} for name, reason in failed.items()]


# ------------------------------------------------------------------------------------------------- read elsewhere


def told_to_watch(summary: Summary) -> dict[str, str]:
    return {name: str(number) for name, number in asdict(summary).items()}


def heard(facts: Mapping[str, str]) -> Summary:
    numbers = {name: float(facts.get(name, 0)) for name in asdict(Summary())}
    counts = {group.value: int(numbers[group.value]) for group in standings.Group}
    return Summary(**counts, pace=numbers["pace"], left=numbers["left"])


def reasons(run: UUID) -> Mapping[str, str]:
    """Why points failed, as this run of a coordinator says: another of the same name had others."""
    with get_client(sync_client=True) as client:
        return {row["point"]: row["reason"] for row in table(newest(client, run, FAILED))}


def newest(client: SyncPrefectClient, run: UUID, kind: str) -> Artifact | None:
    """A coordinator that crashed and began again left an older one."""
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), type=ArtifactFilterType(any_=[TYPE]))
    found = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC)
    return next((one for one in found if (one.key or "").startswith(kind)), None)


def table(artifact: Artifact | None) -> list[dict[str, str]]:
    return json.loads(str(artifact.data)) if artifact else []
