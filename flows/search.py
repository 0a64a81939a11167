"""A search under a budget as a Prefect flow: student, cut and bits together, points that share stages share them.

    python -m flows.search --max-mb 0.1 --max-drop 1              on this machine, with no server of one's own
    python -m flows.search --max-mb 0.1 --max-drop 1 --cluster    on the workers of a cluster (docs/cluster.md)

`lightvision search` is the same.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_client
from prefect.artifacts import create_table_artifact
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from flows import coordinating, leaderboard, submitting, watch
from flows.coordinating import POLL, Order, Site
from flows.core import planning, pursuit, space, truth, verdict
from flows.core.pursuit import EXPORT, Pursuit
from flows.core.searching import Plan, Search, spread
from flows.core.space import Space
from flows.core.verdict import Verdict
from flows.core.work import Wish
from flows.leaderboard import Leaderboard
from lightvision import best, experiments, gathering, points
from lightvision import search as command
from lightvision.search import AT_ONCE, POINTS
from stages.core import params, words
from stages.core.running.errors import Refusal

KEY = "verdict-"  # begins the artifact's; a search's name follows


class Asking(BaseModel):
    """What a person wants of a search; `limits` are those of `lightvision best`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    limits: dict[str, float | None]
    points: int
    at_once: int
    seed: int
    halving: str
    sets: tuple[str, ...]


@flow(name="search", on_cancellation=[coordinating.end_jobs], flow_run_name="{name}")
@coordinating.in_words
def search(
    name: str = "search",
    space_file: str = "studies/search.yaml",
    rev: str = "main",
    max_mb: float | None = None,
    max_ms: float | None = None,
    max_drop: float | None = None,
    min_accuracy: float | None = None,
    max_macs: float | None = None,
    max_joules: float | None = None,
    points: int = POINTS,
    at_once: int = AT_ONCE,
    seed: int = 0,
    halving: str = "",
    sets: list[str] = [],  # noqa: B006 - Prefect shows it to those who fill in the form, and validates a copy
    repository: str = "",
    queue: str | None = None,
) -> str:
    """What was found; the space is a file of the repository, and limits are those of `lightvision best`."""
    limits = {
        "max_mb": max_mb,
        "max_ms": max_ms,
        "max_drop": max_drop,
        "min_accuracy": min_accuracy,
        "max_macs": max_macs,
        "max_joules": max_joules,
    }
    asking = Asking(
        name=name, limits=limits, points=points, at_once=at_once, seed=seed, halving=halving, sets=tuple(sets)
    )
    site = coordinating.cluster(repository, rev, name, queue)
    found = carry_out(asking, coordinating.at(site, lambda: space.read(Path(space_file))), site, is_here=False)
    create_table_artifact(
        [dict(row) for row in found.rows],
        key=f"{KEY}{name.replace('_', '-')}",
        description="\n".join(found.said),
    )
    if not found.found:
        raise coordinating.Incomplete(found.said[0])
    return found.said[0]


@flow(name="search on one machine")
def here(asking: Asking, space: Space) -> Verdict:
    return carry_out(asking, space, submitting.this_machine(asking.at_once), is_here=True)


def carry_out(asking: Asking, wanted: Space, site: Site, is_here: bool) -> Verdict:
    """Until it is known what is best, and all of that is measured."""
    plan, values = prepare(asking, wanted, site)
    coordinator = coordinating.begin(Order(asking.name, (), ()), site)
    expand = partial(expanded, site, asking.name)
    chase = Pursuit(Search(plan, wanted.coordinates(values)), coordinator, expand, asking.sets, values["seed"])
    board = Leaderboard(asking.name)
    while chase.step():
        board.show(coordinator)
        time.sleep(POLL)
    choice = verdict.choose(chase)
    while choice and choice.found and chase.finish(choice.entry):
        board.show(coordinator)
        time.sleep(POLL)
    board.show(coordinator, last=True)
    again = ["lightvision", "sweep", "--name", f"{asking.name}-seeds"]
    return verdict.conclude(chase, choice, values["evaluate"]["confidence"], again, is_here)


def expanded(site: Site, name: str, wishes: Sequence[Wish], targets: Sequence[str]) -> list[planning.Asked]:
    return planning.expand(site.repository, site.rev, name, wishes, targets)


def prepare(asking: Asking, wanted: Space, site: Site) -> tuple[Plan, Mapping[str, Any]]:
    """The plan, and params.yaml as it is without a search; whatever can be refused is refused here."""
    gathering.check_name(asking.name)
    if asking.points < 1 or asking.at_once < 1:
        raise Refusal("--points and --at-once count from 1")
    if given := [one for one in asking.sets if one.lstrip("+~").startswith("seed=")]:
        raise Refusal(f"-S {given[0]}: a search has one seed, that of params.yaml; commit another there")
    seed = truth.parameters((site.repository.read(site.rev, truth.PARAMS) or b"").decode())["seed"]
    expand = partial(expanded, site, asking.name)
    [asked] = expand([Wish(seed=seed, sets=asking.sets)], [EXPORT])
    values = truth.parameters(asked.params_text)
    wanted.check(values)
    rungs = space.rungs(asking.halving, wanted, values) if asking.halving else [()]
    samples = [*wanted.samples(), *(rung for rung in rungs if rung)]
    expand([Wish(seed=seed, sets=(*asking.sets, *sample)) for sample in samples], [EXPORT])
    budget = best.budgeted(**asking.limits) or params.limits(values["report"]["budget"], "report.budget in params.yaml")
    return Plan(wanted, budget, asking.points, asking.at_once, asking.seed, rungs), values


# -------------------------------------------------------------------------------------------------- as it is typed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.search", description=command.TEXT, allow_abbrev=False)
    command.add_options(parser)
    asked = vars(parser.parse_args())
    try:
        sys.exit(run(file=asked.pop("space"), **asked))
    except Refusal as refusal:
        sys.exit(f"search: {' '.join(str(refusal).split())}")
    except KeyboardInterrupt:
        sys.exit(130)


def run(file: Path, cluster: bool, detach: bool, queue: str | None, dry: bool, **asked: Any) -> int:
    own = {name: asked.pop(name) for name in ("name", "points", "seed", "halving", "sets")}
    at_once = asked.pop("at_once") or (AT_ONCE if cluster else 1)
    asking = Asking(**own, at_once=at_once, limits=asked)
    if not cluster and (detach or queue):
        raise Refusal("--detach and --queue are for --cluster")
    wanted = space.read(file)
    if dry:
        return list_points(asking, wanted)
    if dirty := experiments.uncommitted(points.needed([pursuit.BENCHMARK])):
        raise Refusal(f"commit {words.listed(dirty[: gathering.LISTED])} first: an experiment belongs to a commit")
    if cluster:
        return _on_cluster(asking, file, queue, detach)
    with submitting.own_server():
        found = here.with_options(flow_run_name=asking.name)(asking, wanted)
    show(found.said, found.rows)
    return 0 if found.found else 1


def list_points(asking: Asking, wanted: Space) -> int:
    """Those before the first proposal, which are all that is known beforehand."""
    site = submitting.this_machine(asking.at_once)
    plan, values = prepare(asking, wanted, site)
    first = Search(replace(plan, at_once=1 + spread(plan.points)), wanted.coordinates(values))
    sets = [(*asking.sets, *first.sets(entry)) for entry in first.ask()]
    last = pursuit.target(plan.budget)
    asked = expanded(site, asking.name, [Wish(seed=values["seed"], sets=one) for one in sets], [last])
    there = points.there(points.needed([last]))
    table = Table(title=f"the first of {words.plural(plan.points, 'point')}, as far as {last}")
    for column in ("experiment", "parameters"):
        table.add_column(column, overflow="fold")
    for one, parameters in zip(asked, sets, strict=True):
        table.add_row(there[one.digest].name if one.digest in there else "to run", " ".join(parameters))
    Console().print(table)
    return 0


def _on_cluster(asking: Asking, file: Path, queue: str | None, detach: bool) -> int:
    address = submitting.origin()
    if _git("status", "--porcelain", "--", str(file)):
        raise Refusal(f"commit and push {file} first: a cluster reads it from there")
    wanted = asking.model_dump(exclude={"limits"}, mode="json") | asking.limits
    wanted |= {"space_file": str(file), "rev": experiments.head(), "repository": address, "queue": queue}
    run = submitting.submit("search/cluster", asking.name, wanted)
    print(f"{asking.name}: {watch.link(run.id)}", flush=True)
    if detach:
        print(f"`python -m flows.watch {asking.name}` follows it")
        return 0
    found = watch.follow(run.id, asking.name)
    submitting.bring(asking.name)
    with get_client(sync_client=True) as client:
        artifact = leaderboard.newest(client, run.id, KEY)
    if artifact is not None:
        show((artifact.description or "").splitlines(), leaderboard.table(artifact))
    return 0 if found else 1


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()


def show(said: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """The files that no other beats, what they were made with, then the words."""
    console = Console()
    facts = [name for name in rows[0] if name != verdict.MADE_WITH] if rows else []
    table = Table(*facts, title="files that no other beats in everything")
    for row in rows:
        table.add_row(*(row[name] for name in facts))
    lines = [f"  {row[facts[0]]}: {row[verdict.MADE_WITH] or 'the defaults'}" for row in rows]
    if rows:
        console.print(table)
    for line in [*dict.fromkeys(lines), *said]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
