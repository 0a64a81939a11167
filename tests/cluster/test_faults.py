"""Points of a sweep end as if nothing had happened, whatever happens meanwhile."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.cluster import checks
from tests.cluster.cluster import ENGINE, WORKER, Cluster, git
from tests.cluster.hosts import BIN, Host, wait
from tests.cluster.toy import HELD

pytestmark = pytest.mark.slow

QUICK = 0.05  # seconds an epoch takes that nobody wants to see
SILENCE = 500.0  # seconds after which a host that says nothing has lost its work, and what follows is done
CUT = 60.0


def test_undisturbed(cluster: Cluster) -> None:
    cluster.world.toy.pace(QUICK)
    checks.whole(cluster, cluster.sweep("undisturbed"))


def test_stage_engine_and_worker_are_killed(cluster: Cluster) -> None:
    """Each ends alone: what it started ends with it, and what it was to do is done again from where it was."""
    cluster.world.toy.pace(QUICK, train_teacher=0.5, prune=0.8)
    run = cluster.sweep("killed")
    [teacher] = cluster.reaches("train_teacher", epoch=3)
    cluster.process_of(teacher).kill()
    first = cluster.reaches("prune", epoch=2)[0]
    cluster.world.toy.pace(QUICK, prune=0.5, **{f"prune@{first.host}": HELD})  # both are killed in the middle
    second = next(one for one in cluster.reaches("prune", count=2, epoch=2) if one.host != first.host)
    cluster.world.toy.pace(QUICK, prune=HELD)
    assert cluster.host_of(second).kill(WORKER)
    wait(lambda: not cluster.lives(second), "a stage lives on without its worker", 60)
    assert cluster.host_of(first).kill(ENGINE)
    wait(lambda: not cluster.lives(first), "a stage lives on without its engine", 60)
    cluster.world.toy.pace(QUICK)
    checks.whole(cluster, run)


def test_host_and_coordinator_are_killed(cluster: Cluster) -> None:
    """Nobody says that a host is gone: it falls silent. Meanwhile whoever would have noticed is killed, too."""
    cluster.world.toy.pace(QUICK, prune=HELD)
    run = cluster.sweep("crashed")
    victim, _ = cluster.reaches("prune", count=2, epoch=0)
    wait(lambda: any(one["name"].endswith("describe") for one in cluster.runs("COMPLETED")), "no card", SILENCE)
    with crashed(cluster, cluster.host_of(victim)):
        assert cluster.world.hosts["cpu0"].kill(ENGINE)
        wait(lambda: cluster.state(run)["type"] == "CRASHED", "nobody sees that the coordinator crashed")
        wait(lambda: cluster.state(run)["type"] != "CRASHED", "the coordinator does not start again", SILENCE)
        cluster.world.toy.pace(QUICK)
        assert cluster.outcome(run, SILENCE)["type"] == "COMPLETED"
    checks.whole(cluster, run, littered=(victim.host,))


def test_two_coordinators_and_a_server_that_dies(cluster: Cluster) -> None:
    """Both want the same points, and both get them; neither minds that nobody answers for a while."""
    cluster.world.toy.pace(QUICK, prune=HELD)
    runs = [cluster.sweep("rivals"), cluster.sweep("rivals")]
    cluster.reaches("prune", count=2, epoch=0)
    cluster.world.services["prefect"].kill()
    time.sleep(5)
    cluster.world.start_prefect()
    cluster.world.toy.pace(QUICK)
    cluster.world.ready("prefect", f"{cluster.world.api}/health")
    for run in runs:
        assert cluster.outcome(run)["type"] == "COMPLETED"
    checks.whole(cluster, runs[0])


def test_network_is_cut(cluster: Cluster) -> None:
    """From one host for a minute, and from another until its work was done elsewhere: it ends as a late orphan."""
    cluster.world.toy.pace(QUICK, prune=HELD)
    run = cluster.sweep("cut")
    short, long = cluster.reaches("prune", count=2, epoch=0)
    with unplugged(cluster, cluster.host_of(long)):
        with unplugged(cluster, cluster.host_of(short)):
            cluster.world.toy.pace(QUICK, **{f"prune@{long.host}": HELD})
            time.sleep(CUT)
        assert cluster.outcome(run, SILENCE)["type"] == "COMPLETED"
    cluster.world.toy.pace(QUICK)
    late = [one for one in cluster.world.toy.executions("prune") if one.host == long.host]
    assert not late[0].ended
    wait(lambda: not cluster.busy(), "the orphan does not end", SILENCE, 1)
    checks.whole(cluster, run, twice=("prune", "evaluate", "benchmark"))


def test_disk_is_full(cluster: Cluster) -> None:
    """The stage cannot go on there, and goes on elsewhere; the host takes no work while it has no room."""
    host = cluster.world.hosts["gpu1"]
    with small_disk(host):
        cluster.world.toy.pace(QUICK, prune=HELD)
        run = cluster.sweep("full")
        cluster.reaches("prune", count=2, epoch=0)
        host.run("sh", "-c", f"cat /dev/zero > {folder(host)}/filler", check=False)
        cluster.world.toy.pace(QUICK)
        assert cluster.outcome(run)["type"] == "COMPLETED"
        executed = [one for one in cluster.world.toy.executions() if one.host == host.name]
        assert not [one for one in executed if one.stage == "prune" and one.ended]
    checks.whole(cluster, run)


def test_object_in_the_remote_is_corrupted(cluster: Cluster) -> None:
    """Whoever fetches it notices; it is put right from where it still is, or made again."""
    cluster.world.toy.pace(QUICK)
    run = cluster.sweep("corrupt")
    [result] = wait(lambda: cluster.refs("refs/lightvision/jobs").values(), "no job has a result", 300)
    lock = YAML(typ="safe").load(git(cluster.repository, "show", f"{result}:dvc.lock"))
    digest = lock["stages"]["train_teacher"]["outs"][-1]["md5"].removesuffix(".dir")
    objects = cluster.world.storage / "files" / "md5"
    listed = json.loads((objects / digest[:2] / f"{digest[2:]}.dir").read_text())
    victim = objects / listed[0]["md5"][:2] / listed[0]["md5"][2:]
    victim.write_bytes(victim.read_bytes()[::-1])
    checks.whole(cluster, run, twice=("prepare", "train_teacher"))


def test_two_workers_on_one_gpu_are_refused(cluster: Cluster) -> None:
    host = cluster.world.hosts["gpu0"]
    said = host.run(f"{BIN}/lightvision", "worker", check=False, timeout=60)
    assert "another worker has gpu0" in said
    assert "Traceback" not in said
    assert len(host.processes(WORKER)) == 1


def test_two_stages_on_one_gpu_take_turns(cluster: Cluster) -> None:
    """Whoever started them: the lock is the stage's own."""
    host = cluster.world.hosts["gpu0"]
    cluster.world.toy.pace(0.5)
    started = []
    for name in ("one", "two"):
        place = host.home / name
        host.run("git", "clone", "-q", cluster.world.git, str(place))
        command = (
            "python",
            "-m",
            "tests.cluster.toy",
            "prepare",
            "--train",
            "data/train",
            "--metrics",
            "data/metrics.json",
        )
        started.append(host.start(name, *command, cwd=place, LIGHTVISION_DEVICE_LOCK=str(host.home / "device")))
    assert [one.popen.wait(30) for one in started] == [0, 0]
    first, second = cluster.world.toy.executions()
    assert second.began >= first.seen


@contextmanager
def crashed(cluster: Cluster, host: Host) -> Iterator[None]:
    """A host without power, which then starts as it did before."""
    host.crash()
    try:
        yield
    finally:
        cluster.world.boot(host)
        cluster.staff(host)


@contextmanager
def unplugged(cluster: Cluster, host: Host) -> Iterator[None]:
    cluster.world.unplug(host)
    try:
        yield
    finally:
        cluster.world.plug(host)


@contextmanager
def small_disk(host: Host) -> Iterator[None]:
    folder(host).mkdir(parents=True, exist_ok=True)
    host.run("mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder(host)))
    try:
        yield
    finally:
        host.run("umount", "--lazy", str(folder(host)))


def folder(host: Host) -> Path:
    return host.home / ".cache" / "lightvision"
