"""What must be true after every fault: one function, `whole`, that every test calls."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import pairwise

from mlflow import MlflowClient

from tests.cluster import toy
from tests.cluster.cluster import Cluster, content, git
from tests.cluster.hosts import BIN, wait

SHARED = ("prepare", "describe", "train_teacher")
LIVING = ("PENDING", "RUNNING", "CANCELLING", "SCHEDULED")
QUIET = 30.0  # seconds after which nothing of a job may be left


def whole(cluster: Cluster, run: str, *, twice: Collection[str] = (), littered: Collection[str] = ()) -> None:
    """`twice` are stages whose work a fault could not but have done again; a host that lost all its processes is
    `littered` with their clones until its next job.
    """
    ended = cluster.outcome(run)
    assert ended["type"] == "COMPLETED", ended["message"]
    points_are_there_once(cluster)
    stages_finished_once(cluster, twice)
    no_epoch_was_done_again(cluster, twice)
    devices_had_one_process_at_a_time(cluster)
    the_remote_holds_what_it_says(cluster)
    nothing_is_left(cluster, littered)
    mlflow_has_each_execution_once(cluster)
    a_person_has_nothing_to_do(cluster)


def points_are_there_once(cluster: Cluster) -> None:
    """And they are, byte by byte, what a person alone would have got."""
    refs = cluster.refs("refs/exps")
    wanted = {reference["params.yaml"]: reference for reference in cluster.references}
    found = {ref: content(cluster.repository, rev) for ref, rev in refs.items()}
    assert sorted(one["params.yaml"] for one in found.values()) == sorted(wanted), sorted(refs)
    for ref, files in found.items():
        assert files == wanted[files["params.yaml"]], ref
        history = (cluster.repository / "logs" / ref).read_text().splitlines()
        assert len(history) == 1, f"{ref} was written {len(history)} times"


def stages_finished_once(cluster: Cluster, twice: Collection[str]) -> None:
    executions = [one for one in cluster.world.toy.executions() if one.ended]
    keys: dict[str, Counter[str]] = {stage: Counter() for stage in toy.STAGES}
    for one in executions:
        keys[one.stage][one.journal.rpartition("-")[0]] += 1
    for stage, counts in keys.items():
        assert len(counts) == (1 if stage in SHARED else len(cluster.references)), f"{stage}: {counts}"
        most = max(counts.values())
        assert most == 1 or (stage in twice and most == 2), [one for one in executions if one.stage == stage]


def no_epoch_was_done_again(cluster: Cluster, twice: Collection[str]) -> None:
    """On a host that has the checkpoint."""
    done = Counter(
        (one.host, one.journal.rpartition("-")[0], epoch)
        for one in cluster.world.toy.executions()
        for epoch in one.epochs
        if one.stage not in twice
    )
    assert max(done.values()) == 1, [what for what, count in done.items() if count > 1]


def the_remote_holds_what_it_says(cluster: Cluster) -> None:
    objects = [path for path in (cluster.world.storage / "files" / "md5").glob("*/*") if path.is_file()]
    assert objects, "DVC's remote is empty"
    for path in objects:
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        assert path.parent.name + path.name.removesuffix(".dir") == digest, f"{path.name} has other content"


def devices_had_one_process_at_a_time(cluster: Cluster) -> None:
    by_device: dict[tuple[str, str], list[toy.Execution]] = {}
    for one in cluster.world.toy.executions():
        if one.host.startswith("gpu"):
            assert one.device, f"{one.stage} on {one.host} held no lock of a device"
        if one.device:
            by_device.setdefault((one.host, one.device), []).append(one)
    for device, executions in by_device.items():
        in_turn = sorted(executions, key=lambda one: one.began)
        for first, second in pairwise(in_turn):
            assert first.seen <= second.began, f"{first.stage} and {second.stage} were on {device} at once"


def nothing_is_left(cluster: Cluster, littered: Collection[str]) -> None:
    """No process, no clone, no run that Prefect takes for a living one, no slot."""
    with suppress(TimeoutError):
        wait(lambda: not cluster.busy() and not cluster.runs(*LIVING), "", QUIET, 0.5)
    assert not cluster.busy()
    assert not [run["name"] for run in cluster.runs(*LIVING)], "Prefect believes that they live"
    for host in cluster.world.workers:
        jobs = host.home / ".cache" / "lightvision" / "jobs"
        assert host.name in littered or not jobs.is_dir() or not [*jobs.iterdir()], (
            f"{host.name} keeps clones: {[*jobs.iterdir()]}"
        )
    for limit in cluster.ask("POST", "v2/concurrency_limits/filter", {}):
        assert not limit["active_slots"], limit["name"]
    for worker, program in cluster.workers.items():
        assert program.runs, f"worker {worker} ended:\n{program.said[-3000:]}"


def mlflow_has_each_execution_once(cluster: Cluster) -> None:
    """One run for each piece of work that a host went through, resumed or not."""
    client = MlflowClient(cluster.world.mlflow)
    journals = {one.journal for one in cluster.world.toy.executions() if one.ended}
    experiment = client.get_experiment_by_name("lightvision")
    assert experiment, "MLflow was told nothing"

    def sent() -> bool:
        found: Counter[str] = Counter()
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            found[run.data.tags.get("lightvision.journal", "")] += run.info.status == "FINISHED"
        counts: Mapping[str, int] = {journal: found[journal] for journal in journals}
        assert all(count <= 1 for count in counts.values()), counts
        return all(counts.values())

    wait(sent, "MLflow lacks executions", QUIET, 0.5)


def a_person_has_nothing_to_do(cluster: Cluster) -> None:
    """Who clones and pulls executes nothing, and has git clean."""
    person, folder = cluster.world.person, cluster.world.person.home / "fresh"
    executed = len(cluster.world.toy.lines())

    def dvc(*words: str) -> str:
        return person.run(f"{BIN}/dvc", *words, cwd=folder, LIGHTVISION_TRACKING="off")

    person.run("git", "clone", "-q", cluster.world.git, str(folder))
    dvc("exp", "pull", "--no-cache", "origin")
    names = {ref.rpartition("/")[2]: rev for ref, rev in cluster.refs("refs/exps").items()}
    shown = json.loads(dvc("exp", "show", "--json"))
    assert {one["name"] for baseline in shown for one in baseline.get("experiments") or []} == set(names)
    git(folder, "checkout", "-q", names[min(names)])
    dvc("repro", "--dry", "--allow-missing")
    dvc("pull", "-q")
    dvc("repro")
    assert len(cluster.world.toy.lines()) == executed, "dvc repro executed something"
    assert not git(folder, "status", "--porcelain")
