"""Pools, queues and automations of a cluster, as deploy/ says; run it again whenever those files changed.

    python -m flows.setup                       workers start processes
    python -m flows.setup --jobs kubernetes     GPU and CPU work are Kubernetes jobs (or docker: containers)

Coordinators are processes in either case: they need no GPU and little memory, and stay near the server.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker
from ruamel.yaml import YAML

from stages.core.running.errors import Refusal
from stages.core.running.sources import ROOT

DEPLOY = ROOT / "deploy"
COORDINATORS = "lightvision-coordinators"
WORK = {"lightvision-gpu": "gpu", "lightvision-cpu": "cpu"}
QUEUES = {"high": 1, "default": 2, "low": 3}  # the first is served first
JOBS = ("process", "docker", "kubernetes")


def template(jobs: str, hardware: str) -> dict[str, Any]:
    """What a worker makes of a flow run."""
    if jobs == "process":
        return ProcessWorker.get_default_base_job_template()
    return json.loads((DEPLOY / "pools" / f"{jobs}.{hardware}.json").read_text(encoding="utf-8"))


def automations() -> list[AutomationCore]:
    written = YAML(typ="safe").load(DEPLOY / "automations.yaml")
    return [AutomationCore.model_validate(automation) for automation in written["automations"]]


def put_pool(client: SyncPrefectClient, name: str, jobs: str, made: Mapping[str, Any]) -> str:
    """A limit or a pause that a person has set since stays as it is."""
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=jobs, base_job_template=dict(made)))
        return "created"
    if pool.type != jobs:
        raise Refusal(f"pool {name} is of type {pool.type}, not {jobs}: `prefect work-pool delete {name}` first")
    client.update_work_pool(name, WorkPoolUpdate(base_job_template=dict(made)))
    return "up to date"


def put_queues(client: SyncPrefectClient, pool: str) -> None:
    there = {queue.name: queue for queue in client.read_work_queues(work_pool_name=pool)}
    for name, priority in QUEUES.items():
        if name not in there:
            client.create_work_queue(name, priority=priority, work_pool_name=pool)
        elif there[name].priority != priority:
            client.update_work_queue(there[name].id, priority=priority)


def put_automation(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    there = client.read_automations_by_name(wanted.name)
    if not there:
        client.create_automation(wanted)
        return "created"
    client.update_automation(there[0].id, wanted)
    return "up to date"


def run(jobs: str) -> None:
    settings = get_current_settings()
    if not settings.api.url:
        raise Refusal("PREFECT_API_URL is not set: export the address of your server, http://HOST:4200/api")
    with get_client(sync_client=True) as client:
        for pool, hardware in {COORDINATORS: "cpu", **WORK}.items():
            kind = jobs if pool in WORK else "process"
            print(f"pool {pool} ({kind}): {put_pool(client, pool, kind, template(kind, hardware))}")
            put_queues(client, pool)
        for automation in automations():
            print(f"automation {automation.name!r}: {put_automation(client, automation)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.setup", description="Make a server ready for a cluster.")
    parser.add_argument("--jobs", choices=JOBS, default="process", help="what GPU and CPU work runs in")
    try:
        run(parser.parse_args().jobs)
    except Refusal as refusal:
        sys.exit(f"setup: {refusal}")
    except httpx.HTTPStatusError as error:
        hint = ": PREFECT_API_AUTH_STRING is not the server's" if error.response.status_code == 401 else ""
        sys.exit(f"setup: the server answers {error.response.status_code}{hint}")
    except (httpx.TransportError, RuntimeError) as error:
        sys.exit(f"setup: no server answers at PREFECT_API_URL: {error}")


if __name__ == "__main__":
    main()
