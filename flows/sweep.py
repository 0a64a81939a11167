"""A sweep over seeds or folds as a Prefect flow: points that share stages share their execution.

    python -m flows.sweep --seeds 5                     on this machine, with no server of one's own
    python -m flows.sweep --seeds 5 --cluster           on the workers of a cluster (docs/cluster.md)

The options are those of `lightvision sweep`, and so are the points, their names and the table at the end.
"""

import argparse
import sys

from prefect import flow

from flows import coordinating, submitting
from flows.coordinating import Order
from flows.core.coordinator import Rules
from flows.core.work import Wish
from lightvision import sweep as seeds_and_folds


@flow(name="sweep", on_cancellation=[coordinating.end_jobs], flow_run_name="{name}")
@coordinating.in_words
def sweep(
    name: str = "seeds",
    rev: str = "main",
    seeds: int | None = None,
    folds: int = 1,
    sets: list[str] = [],  # noqa: B006 - Prefect shows it to those who fill in the form, and validates a copy
    to: str | None = None,
    points: list[Wish] | None = None,
    targets: list[str] | None = None,
    repository: str = "",
    queue: str | None = None,
    ahead: int = Rules.ahead,
) -> dict[str, str]:
    """Points and their experiments' commits; `points` with `targets` say the same as seeds, folds, sets and to."""
    if points is None:
        numbers = seeds_and_folds.grid(seeds, folds)
        shared = (*sets, *seeds_and_folds.folded(folds))
        points = [Wish(seed=seed, fold=fold, sets=shared) for seed, fold in numbers]
        targets = [to] if to else list(seeds_and_folds.WHOLE)
    site = coordinating.cluster(repository, rev, name, queue)
    order = Order(name=name, wishes=points, targets=targets or [], ahead=ahead)
    return dict(coordinating.conclude(coordinating.coordinate(order, site)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description=seeds_and_folds.TEXT, allow_abbrev=False)
    seeds_and_folds.add_options(parser)
    sys.exit(submitting.run(parser, seeds_and_folds.plan))


if __name__ == "__main__":
    main()
