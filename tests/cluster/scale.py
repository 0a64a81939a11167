"""Points per hour by the number of workers, and what a job costs beside its stages.

    python -m tests.cluster.scale OUT.json

Stages sleep, since the hosts share the processors of one machine: what is measured is what cannot be done at once.
"""

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from stages.core import hardware
from stages.core.running import files
from stages.core.running.sources import ROOT
from tests.cluster import toy
from tests.cluster.cluster import Cluster
from tests.cluster.world import World

ROUNDS = ((1, 2), (2, 2), (4, 4))  # workers, points
EPOCHS, SECONDS = 6, 25.0  # of prune, as params.yaml has it; how long one sleeps: what a job costs beside it, all share
QUICK = 0.01
ASKED, LOOKS = 200, 10  # as many as Prefect gives at once


def main() -> None:
    out = Path(sys.argv[1])
    with World(gpus=max(workers for workers, _ in ROUNDS), cpus=1) as world:
        cluster = Cluster(world)
        toy.begin(world.person, world.git, world.remote)
        staffed = [host for host in world.workers if not host.name.startswith("gpu")]
        cluster.staff_all(staffed)
        world.toy.pace(QUICK)
        rounds = []
        for workers, points in ROUNDS:
            for host in world.workers:
                if host.name.startswith("gpu") and host not in staffed and len(staffed) - 1 < workers:
                    cluster.staff(host)
                    staffed.append(host)
            rounds.append(measure(cluster, workers, points))
            print(rounds[-1], flush=True)
        server = server_costs(cluster) | results_costs(world)
    one = rounds[0]["points_per_hour"]
    for row in rounds:
        row["efficiency"] = row["points_per_hour"] / row["workers"] / one
    names = ("dvc", "prefect", "mlflow")
    content = {
        "rounds": rounds,
        "server": server,
        "machine": hardware.describe(),
        "versions": {name: version(name) for name in names},
    }
    files.write_json(out, content | {"date": datetime.now().astimezone().date().isoformat()})


def measure(cluster: Cluster, workers: int, points: int) -> dict[str, Any]:
    """A first point makes what all share, so that the others differ in nothing but where they run."""
    world, shares = cluster.world, [(place + 1) / 100 for place in range(points)]
    world.toy.pace(QUICK)
    assert cluster.outcome(cluster.sweep(f"first-{workers}", [0.9]))["type"] == "COMPLETED"
    world.toy.forget()
    world.toy.pace(QUICK, prune=SECONDS)
    began = time.time()
    assert (
        cluster.outcome(cluster.sweep(f"with-{workers}", [share + workers / 1000 for share in shares]), 3600)["type"]
        == "COMPLETED"
    )
    jobs = [run for run in cluster.runs("COMPLETED") if run["name"].startswith(f"with-{workers}-")]
    assert len(jobs) == points, [run["name"] for run in jobs]
    starts, ends = ([moment(run[name]) for run in jobs] for name in ("start_time", "end_time"))
    asked = min(moment(run["created"]) for run in jobs)
    slept = EPOCHS * SECONDS
    return {
        "workers": workers,
        "points": points,
        "stage_seconds": slept,
        "seconds": max(ends) - asked,
        "points_per_hour": points / (max(ends) - asked) * 3600,
        "planned_after_seconds": asked - began,
        "job_seconds": spread([end - start for start, end in zip(starts, ends, strict=True)]),
        "job_beside_stages_seconds": spread([end - start - slept for start, end in zip(starts, ends, strict=True)]),
    }


def server_costs(cluster: Cluster) -> dict[str, Any]:
    """What Prefect's server, on PostgreSQL, takes for a coordinator's requests; nobody works at these runs."""
    deployment = cluster.ask("GET", "deployments/name/job/gpu")
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
    work = {
        "repository": "",
        "baseline": "",
        "start": "",
        "start_ref": "",
        "stages": [],
        "target": "",
        "title": "",
        "experiment": "",
    }
    took, made = [], []
    for number in range(ASKED):
        began = time.perf_counter()
        content = {"state": later, "idempotency_key": f"scale-{number}", "parameters": {"work": work}}
        made.append(cluster.ask("POST", f"deployments/{deployment['id']}/create_flow_run", content)["id"])
        took.append(time.perf_counter() - began)
    looks = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        found = cluster.ask("POST", "flow_runs/filter", {"flow_runs": {"id": {"any_": made}}, "limit": ASKED})
        looks.append(time.perf_counter() - began)
        assert len(found) == ASKED
    pool = "work_pools/lightvision-gpu/get_scheduled_flow_runs"
    polls = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        assert not cluster.ask("POST", pool, {"scheduled_before": datetime.now(UTC).isoformat()})
        polls.append(time.perf_counter() - began)
    for run in made:
        cluster.ask("DELETE", f"flow_runs/{run}")
    return {
        "ask_for_a_job_seconds": spread(took),
        "look_at_jobs_seconds": spread(looks),
        "jobs_looked_at": ASKED,
        "poll_for_work_seconds": spread(polls),
    }


def results_costs(world: World) -> dict[str, Any]:
    """What a coordinator asks git and the DVC remote about results."""
    said = world.person.run("python", "-m", "tests.cluster.accepting", world.git, "prune", "evaluate", cwd=ROOT)
    found = json.loads(said.splitlines()[-1])
    costs = {"list_results_seconds": spread(found["list"]), "check_a_result_seconds": spread(found["check"])}
    return costs | {"results_listed": found["refs"]}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"n": len(values), "median": median(values), "least": min(values), "most": max(values)}


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
