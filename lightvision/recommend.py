"""`lightvision recommend`: for each kind of device, the file that the budget asks for, and why."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightvision import best, finding
from lightvision.data import settings
from lightvision.revisions import WORKSPACE
from lightvision.runs import Run
from stages.core import choosing, devices, params, words
from stages.core.devices import KINDS, Advice

DEVICES = Path("metrics/devices")


def add(members: Any, action: str) -> None:
    text = (
        "For each kind of device, which file keeps to the limits and is best, and why: as exported, and as converted "
        "for other runtimes. Without limits, those of report.budget in params.yaml. Exit status 1 where no file that "
        "runs on the kind asked for does."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument("kind", nargs="?", choices=sorted(KINDS), help="all if not given")
    parser.add_argument(
        "--run",
        dest="name",
        default=WORKSPACE,
        metavar="RUN",
        help="as in `lightvision compare`; workspace if not given",
    )
    best.add_limits(parser)
    parser.set_defaults(run=run)


def run(kind: str | None, name: str, **limits: float | None) -> int:
    budget = best.budgeted(**limits) or settings().report.budget
    found = dict(zip(KINDS, _advise(finding.named(name), budget), strict=True))
    asked = {kind: found[kind]} if kind else found
    Console().print(_table(asked))
    for one, advice in asked.items():
        print(f"{one}: {advice.reason}")
    return 0 if kind is None or asked[kind].keeps else 1


def _advise(run: Run, budget: params.Budget) -> list[Advice]:
    measured, exported, converted = (run.found(stage) for stage in ("benchmark", "export", "convert"))
    machine = measured["machine"]
    files = devices.candidates(choosing.candidates(measured, exported), converted, machine)
    saturates = exported[choosing.TWINS[0]]["saturates"] > 0
    return devices.advise(files, budget, machine, saturates, devices.read(DEVICES))


def _table(asked: dict[str, Advice]) -> Table:
    table = Table(title=words.plural(len(asked), "kind") + " of device")
    table.add_column("kind")
    table.add_column("device", overflow="fold")
    table.add_column("file", overflow="fold")
    for head in ("bytes", "accuracy on val"):
        table.add_column(head, justify="right")
    for name, advice in asked.items():
        taken = advice.taken
        if taken is None:
            table.add_row(name, advice.kind.title, "none", "", "")
        else:
            said = taken.name if advice.keeps else f"{taken.name} (beyond the budget)"
            table.add_row(name, advice.kind.title, said, words.whole(taken.bytes), words.percent(taken.accuracy))
    return table
