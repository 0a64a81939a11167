"""`lightvision targets`: the files that the winner can become, and the converters that they need."""

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from stages.core.converting import environments
from stages.core.converting.table import MAKERS, TARGETS
from stages.core.running.errors import Refusal

OWN = sorted(name for name, maker in MAKERS.items() if maker.environment)


def add(members: Any, action: str) -> None:
    text = "List every target of convert.targets: what it is made from, and the converter's environment, built or not."
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument(
        "--build", nargs="+", metavar="NAME", default=[], help=f"build these converters first: {', '.join(OWN)}"
    )
    parser.set_defaults(run=run)


def run(build: list[str]) -> int:
    if unknown := [name for name in build if name not in OWN]:
        raise Refusal(f"no converter is called {unknown[0]}; those with an environment of their own: {', '.join(OWN)}")
    for name in build:
        environments.build(name)
    Console().print(table())
    return 0


def table() -> Table:
    told = {name: environment(name) for name in MAKERS}
    table = Table(title=f"{len(TARGETS)} targets, {len(MAKERS)} makers")
    for column in ("target", "file", "made from", "maker", "environment"):
        table.add_column(column)
    for name, target in TARGETS.items():
        table.add_row(name, f"{name}{target.suffix}", f"models/{target.of}", target.maker, told[target.maker])
    return table


def environment(maker: str) -> str:
    if not MAKERS[maker].environment:
        return "the project's own"
    if environments.python(maker) is None:
        return f"not built: --build {maker}"
    return f"built, {environments.bytes_on_disk(maker) / 1e6:,.0f} MB"
