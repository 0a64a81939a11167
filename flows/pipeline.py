"""The DAG of dvc.yaml as a Prefect flow.

    python -m flows.pipeline            the whole DAG, in this folder, with no server of one's own
    python -m flows.pipeline prune      prune and what it needs
    python -m flows.pipeline --cluster  the branch that is checked out here, on the workers of a cluster

On a cluster independent stages run at once, each on a worker of its own, and the branch goes on by one commit, with
dvc.lock and metrics: whoever pulls has nothing to run.
"""

import argparse
import sys
from pathlib import Path

from prefect import flow
from ruamel.yaml import YAML

from flows import coordinating, submitting, watch
from flows.coordinating import Order
from flows.core.work import Wish
from flows.in_place import in_place
from stages.core import params
from stages.core.running import pipeline as dag_file
from stages.core.running.errors import Refusal


@flow(name="pipeline", on_cancellation=[coordinating.end_jobs], flow_run_name="{branch}")
@coordinating.in_words
def dag(
    branch: str = "main", targets: list[str] | None = None, repository: str = "", queue: str | None = None
) -> dict[str, str]:
    """The commit by which the branch went on."""
    site = coordinating.cluster(repository, branch, branch, queue)
    seed = coordinating.at(site, lambda: YAML(typ="safe").load(Path("params.yaml"))["seed"])
    order = Order(name=branch, wishes=[Wish(seed=seed)], targets=targets or [], branch=branch)
    return dict(coordinating.conclude(coordinating.coordinate(order, site)))


def main() -> None:
    stages = dag_file.read()
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Run the DAG as a Prefect flow.")
    parser.add_argument("targets", nargs="*", metavar="STAGE", help=f"default: all of {', '.join(stages)}")
    submitting.add_cluster(parser)
    asked = parser.parse_args()
    try:
        if unknown := [target for target in asked.targets if target not in stages]:
            raise Refusal(f"{unknown[0]} is not a stage; stages: {', '.join(stages)}")
        if asked.cluster:
            _on_cluster(asked.targets, asked.queue, asked.detach)
            return
        params.load(Path("params.yaml"))
        with submitting.own_server():
            outcome = in_place(asked.targets)
    except (Refusal, RuntimeError) as error:
        sys.exit(f"pipeline: {error}")
    print("\n".join(f"{name}: {state.lower()}" for name, state in outcome.items()))


def _on_cluster(targets: list[str], queue: str | None, detach: bool) -> None:
    branch = submitting.branch()
    origin = submitting.origin(branch)
    submitting.refuse_edited()
    wanted = {"branch": branch, "targets": targets or None, "repository": origin, "queue": queue}
    run = submitting.submit("pipeline/cluster", branch, wanted)
    print(f"{branch}: {watch.link(run.id)}", flush=True)
    if detach:
        print(f"`python -m flows.watch {branch}` follows it")
    elif not watch.follow(run.id, branch):
        sys.exit(1)
    print(f"then `git pull` and `dvc pull` bring what {branch} came to")


if __name__ == "__main__":
    main()
