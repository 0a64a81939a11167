"""A real coordinator over a made-up git and made-up workers: jobs stand as a test says."""

import json
from collections.abc import Collection, Mapping
from typing import Any, cast

from flows.core.coordinator import Coordinator, Rules
from flows.core.hands import Seen, Stand, Ticket
from flows.core.ledger import Ledger
from flows.core.planning import Asked, Job
from flows.core.promoting import Outcome
from flows.core.work import JOBS, Work

PIPELINE = b"""
stages:
  prepare: {cmd: python -m stages prepare, outs: [data]}
  prune: {cmd: python -m stages prune, deps: [data], outs: [models/pruned]}
  export: {cmd: python -m stages export, deps: [models/pruned], outs: [models/shipped]}
  benchmark: {cmd: python -m stages benchmark, deps: [models/shipped], metrics: [metrics/benchmark.json]}
"""
STAGES = ("prepare", "prune", "export", "benchmark")


class MadeGit:
    """Metrics by commit and stage; a job's result is there once somebody put it there."""

    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, Any]] = {}
        self.results: dict[str, str] = {}
        self.reads = 0

    def read(self, rev: str, path: str) -> bytes | None:
        if path == "dvc.yaml":
            return PIPELINE
        self.reads += 1
        found = self.metrics.get(rev, {}).get(path.removeprefix("metrics/").removesuffix(".json"))
        return None if found is None else json.dumps(found).encode()

    def fetch(self, *patterns: str) -> None:
        pass

    def refs(self, *patterns: str) -> dict[str, str]:
        return self.results

    def create(self, refs: Mapping[str, str]) -> dict[str, bool]:
        return dict.fromkeys(refs, True)


class MadeLedger:
    """Whatever a job pushed is believed."""

    baseline = "base"

    def __init__(self, git: MadeGit) -> None:
        self.repository = git
        self.done: set[str] = set()
        self.keys: dict[str, dict[str, str]] = {}

    def learn(self, rev: str) -> set[str]:
        return set()

    def start(self, job: Job, asked: Asked) -> tuple[str, str]:
        self.keys[job.key] = asked.keys
        return f"refs/lightvision/starts/{job.key}/x", "start"

    def shows(self, job: Job, rev: str) -> dict[str, str]:
        return {stage: self.keys[job.key][stage] for stage in job.stages}

    def accept(self, job: Job, rev: str) -> set[str]:
        new = set(self.shows(job, rev).values())
        self.done |= new
        return new


class MadeHands:
    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.titles: dict[str, str] = {}

    def ask(self, work: Work, name: str, pool: str) -> Ticket:
        self.titles[name] = work.title
        return Ticket(name, self.seen.setdefault(name, Seen(Stand.WAITING)))

    def look(self, ids: Collection[str]) -> Mapping[str, Seen]:
        return {one: self.seen[one] for one in ids}

    def cancel(self, ids: Collection[str]) -> None:
        pass


class MadeSweep:
    """Points `s-0`, `s-1` ...: prepare is everybody's, and done; the rest is one job, or one for each stage."""

    def __init__(self, count: int, apart: bool = False) -> None:
        self.git, self.hands = MadeGit(), MadeHands()
        ledger = MadeLedger(self.git)
        ledger.done.add("prepare")
        self.coordinator = Coordinator(
            cast(Ledger, ledger),
            self.hands,
            lambda ready: {name: Outcome(f"rev-{name}") for name in ready},
            name="s",
            reach="nowhere",
            rules=Rules(attempts=9, ahead=10_000),
            apart=apart,
            tell=lambda line: None,
        )
        self.coordinator.add([asked(number) for number in range(count)])
        self.coordinator.step()

    def job(self, number: int) -> str:
        """The newest attempt at a point's job."""
        return [name for name, title in self.hands.titles.items() if title.startswith(f"s-{number}:")][-1]

    def stands(self, number: int, stand: Stand, reason: str = "", host: str = "") -> None:
        self.hands.seen[self.job(number)] = Seen(stand, reason, host)
        self.coordinator.step()

    def finish(self, number: int, **metrics: Any) -> None:
        self.git.metrics[f"rev-s-{number}"] = metrics
        self.git.results[f"{JOBS}/{self.job(number)}"] = f"result-{number}"
        self.stands(number, Stand.ENDED)


def asked(number: int) -> Asked:
    keys = {stage: "prepare" if stage == "prepare" else f"{stage}-{number}" for stage in STAGES}
    sets = ("distill.epochs=9", f"prune.sparsity=0.{number}", f"seed={number}")
    return Asked(f"s-{number}", "", number, None, "", sets, "", keys)
