"""A world with everything a platform engineer installs, and what a person and a watcher do with it."""

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

from stages.core.running.sources import ROOT
from tests.cluster import toy
from tests.cluster.hosts import BIN, Host, Program, wait
from tests.cluster.world import World

OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
SPARSITIES = (0.3, 0.6)  # of the points that are asked for
ENGINE, WORKER = "prefect.engine", "prefect worker start"  # in commands
BUSY = ("tests.cluster.toy", ENGINE, "flows.core", "dvc")  # in commands of what jobs start


@dataclass
class Cluster:
    world: World
    workers: dict[str, Program] = field(default_factory=dict)

    def begin(self) -> "Cluster":
        toy.begin(self.world.person, self.world.git, self.world.remote)
        self.references = self._local_runs()
        self.staff_all()
        return self

    def staff_all(self, hosts: Sequence[Host] | None = None) -> None:
        """As docs/cluster.md has it done by hand."""
        person = self.world.person
        person.run("python", "-m", "flows.setup", cwd=ROOT)
        person.run(f"{BIN}/prefect", "--no-prompt", "deploy", "--all", cwd=ROOT)
        for host in self.world.workers if hosts is None else hosts:
            self.staff(host)

    def staff(self, host: Host) -> None:
        """Its workers, which are there once their pools know them."""
        on_gpu, on_cpu = {"jobs": ()}, {"jobs": ("--slots", "1"), "plans": ("--coordinators",)}
        for kind, options in (on_gpu if host.name.startswith("gpu") else on_cpu).items():
            self.workers[f"{kind} on {host.name}"] = host.start(kind, f"{BIN}/lightvision", "worker", *options)

    def _local_runs(self) -> list[Mapping[str, str]]:
        """What an undisturbed person gets for the same points, with nothing but DVC."""
        person, folder = self.world.person, self.world.person.home / "alone"
        person.run("git", "clone", "-q", self.world.git, str(folder))
        head, found = git(folder, "rev-parse", "HEAD"), []
        for place, sparsity in enumerate(SPARSITIES):
            words = ("exp", "run", "-q", "-n", f"alone{place}", "-S", f"prune.sparsity={sparsity}")
            person.run(f"{BIN}/dvc", *words, cwd=folder, LIGHTVISION_TRACKING="off", TOY_LOG="/dev/null")
            found.append(content(folder, f"refs/exps/{head[:2]}/{head[2:]}/alone{place}"))
        return found

    # ------------------------------------------------------------------------------------------------- asking

    def sweep(self, name: str, sparsities: Sequence[float] = SPARSITIES) -> str:
        """A flow run of the deployed sweep."""
        points = [{"seed": 0, "sets": [f"prune.sparsity={sparsity}"]} for sparsity in sparsities]
        parameters = {"name": name, "points": points, "targets": [], "repository": self.world.git}
        deployment = self.ask("GET", "deployments/name/sweep/cluster")
        content = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "name": name}
        return self.ask("POST", f"deployments/{deployment['id']}/create_flow_run", content)["id"]

    def outcome(self, run: str, timeout: float = 400.0) -> Mapping[str, Any]:
        """Its last state."""

        def over() -> Mapping[str, Any] | None:
            state = self.state(run)
            return state if state["type"] in OVER else None

        return wait(over, f"flow run {run} is not over", timeout, 0.5)

    def state(self, run: str) -> Mapping[str, Any]:
        return self.ask("GET", f"flow_runs/{run}")["state"]

    def runs(self, *states: str) -> list[Mapping[str, Any]]:
        wanted = {"flow_runs": {"state": {"type": {"any_": list(states)}}}} if states else {}
        return self.ask("POST", "flow_runs/filter", {**wanted, "limit": 200})

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        answer = httpx.request(method, f"{self.world.api}/{path}", json=content, timeout=60)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    # ----------------------------------------------------------------------------------------------- watching

    def reaches(self, stage: str, count: int = 1, epoch: int = 1, timeout: float = 300.0) -> list[toy.Execution]:
        """Wait until so many processes of a stage are so far."""

        def there() -> list[toy.Execution]:
            found = [one for one in self.world.toy.executions(stage) if max(one.epochs, default=0) >= epoch]
            return found if len(found) >= count else []

        return wait(there, f"{stage} is not at epoch {epoch} {count} times", timeout)

    def host_of(self, execution: toy.Execution) -> Host:
        return self.world.hosts[execution.host]

    def process_of(self, execution: toy.Execution) -> psutil.Process:
        """That one, by its number outside of its host."""
        for process in self.host_of(execution).processes("tests.cluster.toy", execution.stage):
            numbers = Path(f"/proc/{process.pid}/status").read_text().partition("NSpid:")[2].splitlines()[0].split()
            if int(numbers[-1]) == execution.pid:
                return process
        raise LookupError(f"{execution.stage} does not run on {execution.host} any more")

    def lives(self, execution: toy.Execution) -> bool:
        with suppress(LookupError, OSError):
            return self.process_of(execution).is_running()
        return False

    def busy(self) -> dict[str, list[str]]:
        """What jobs started and what is still there, by host."""
        found = {
            host.name: [" ".join(process.cmdline())[:200] for process in host.processes() if _is_busy(process)]
            for host in self.world.workers
        }
        return {name: commands for name, commands in found.items() if commands}

    @cached_property
    def repository(self) -> Path:
        """What `world.git` is on the server's disk."""
        return self.world.server.home / "srv" / "project.git"

    def refs(self, pattern: str) -> dict[str, str]:
        listed = self.git("for-each-ref", "--format=%(refname) %(objectname)", pattern)
        return dict(line.split() for line in listed.splitlines())  # pyright: ignore

    def git(self, *words: str) -> str:
        """By somebody who sits at the server's disk."""
        return git(self.repository, *words)

    # ---------------------------------------------------------------------------------------------- beginning anew

    def clear(self) -> None:
        """As if nothing had ever run: what tests share are the servers and the workers, at rest."""
        for run in self.runs():
            self.ask("DELETE", f"flow_runs/{run['id']}")
        for ref in (*self.refs("refs/exps"), *self.refs("refs/lightvision")):
            self.git("update-ref", "-d", ref)
        shutil.rmtree(self.repository / "logs" / "refs", ignore_errors=True)
        _empty(self.world.storage)
        for host in self.world.workers:
            for name in ("cache", "home", "jobs", "mirror"):
                _empty(host.home / ".cache" / "lightvision" / name)
        _empty(self.world.person.home, keep={".ssh", ".gitconfig", ".prefect", "project", "alone", "tmp", "var"})
        self.world.toy.forget()
        self.world.toy.pace(0.0)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def content(folder: Path, rev: str) -> dict[str, str]:
    """Every file of a commit with its blob: equal blobs are equal bytes."""
    lines = git(folder, "ls-tree", "-r", rev).splitlines()
    return {path: facts.split()[2] for facts, _, path in (line.partition("\t") for line in lines)}


def _is_busy(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return any(word in command for word in BUSY)


def _empty(folder: Path, keep: Iterable[str] = ()) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
