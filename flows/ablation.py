"""An ablation as a Prefect flow: each row with every seed, stages that rows share run once.

python -m flows.ablation studies/pruning.yaml
python -m flows.ablation studies/pruning.yaml --cluster
"""

import argparse
import sys
from pathlib import Path

from prefect import flow

from flows import coordinating, submitting
from flows.coordinating import Order
from flows.core.coordinator import Rules
from flows.core.work import Wish
from lightvision import ablation as rows
from stages.core.running.errors import Refusal


@flow(name="ablation", on_cancellation=[coordinating.end_jobs], flow_run_name="{file}")
@coordinating.in_words
def ablation(
    file: str,
    rev: str = "main",
    seeds: int | None = None,
    sets: list[str] = [],  # noqa: B006 - Prefect shows it to those who fill in the form, and validates a copy
    repository: str = "",
    queue: str | None = None,
    ahead: int = Rules.ahead,
) -> dict[str, str]:
    """Rows and seeds, and their experiments' commits; the file is one of the repository's."""
    name = Path(file).stem
    site = coordinating.cluster(repository, rev, name, queue)
    asked, targets = coordinating.at(site, lambda: _read(Path(file)))
    wishes = [
        Wish(row=row.name, seed=seed, sets=(*sets, *row.set))
        for row in asked.rows
        for seed in range(seeds or asked.seeds)
    ]
    order = Order(name=name, wishes=wishes, targets=targets, ahead=ahead)
    return dict(coordinating.conclude(coordinating.coordinate(order, site)))


def _read(file: Path) -> tuple[rows.Ablation, list[str]]:
    if not file.is_file():
        raise Refusal(f"{file} is not in that commit")
    asked = rows.read(file)
    return asked, rows.last_stages(asked.metrics)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.ablation", description=rows.TEXT, allow_abbrev=False)
    rows.add_options(parser)
    sys.exit(submitting.run(parser, rows.plan))


if __name__ == "__main__":
    main()
