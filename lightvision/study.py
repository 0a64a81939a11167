"""`lightvision study`: what DVC's experiments found, over one parameter or two, as a table here and on the report."""

import argparse
import datetime
import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightvision import experiments
from lightvision.experiments import FINISHED, MISSING, Row
from stages.core import hardware, tables, words
from stages.core.reporting import studies
from stages.core.reporting.studies import Cell, Measured, Metric, Place, Point, Study
from stages.core.running import files
from stages.core.running.errors import Refusal

FOLDER = Path("metrics/studies")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
NEAR, LISTED = 3, 5  # names that a refusal tells
GAIN, LOSS, PLAIN, PAPER = (35, 135, 125), (207, 90, 34), (58, 109, 181), (250, 249, 247)  # as on the report
PALEST, DEEPEST = 0.1, 0.75

Params = dict[str, Any]  # by dotted name


def add(members: Any, action: str) -> None:
    text = "Gather DVC's finished experiments over one parameter or two, for the terminal, git and the report."
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument("name", help=f"of its files in {FOLDER}: small letters, digits, - and _")
    parser.add_argument("--x", required=True, metavar="PARAMETER", help="such as distill.method.temperature")
    parser.add_argument("--y", metavar="PARAMETER", help="a second axis, which makes a heat map")
    parser.add_argument(
        "--value",
        required=True,
        action="append",
        metavar="METRIC",
        help="such as distill.gain_on_val; several, over one axis, are lines of one chart",
    )
    parser.add_argument("--title", help="on the report; made of the names if not given")
    parser.add_argument("--rev", action="append", metavar="COMMIT", help="whose experiments; HEAD if not given")
    parser.add_argument(
        "--where", action="append", metavar="PARAMETER=VALUE", help="only experiments with it; may be repeated"
    )
    parser.add_argument("--mixed", action="store_true", help="allow points that differ in other parameters too")
    parser.set_defaults(run=run)


def run(
    name: str,
    x: str,
    y: str | None,
    value: list[str],
    title: str | None,
    rev: list[str] | None,
    where: list[str] | None,
    mixed: bool,
) -> int:
    if not NAME.fullmatch(name):
        raise Refusal(f"a study's name is small letters, digits, - and _, not {name!r}")
    if x == y:
        raise Refusal(f"--x and --y are both {x}")
    if reason := studies.objection(value, y):
        raise Refusal(reason)
    axes = (x, y) if y else (x,)
    rows = experiments.read(rev or [])
    tell_unfinished(rows)
    chosen = choose(select(rows, where or []), axes, value, mixed)
    study = Study(
        schema=2,
        title=title or f"{words.listed(studies.legend(value) if len(value) > 1 else value)} by {' and '.join(axes)}",
        x=x,
        y=y,
        values=value,
        points=[point(row, axes, value) for row in chosen],
        commit=", ".join(dict.fromkeys(row.rev for row in rows if row.baseline and row.rev)),
        machine=hardware.describe(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    write(name, study)
    show(study)
    return 0


def tell_unfinished(rows: Sequence[Row]) -> None:
    """Such a row of DVC's holds the metrics of its baseline, and is never looked at."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.state != FINISHED:
            names.setdefault(row.state, []).append(row.name)
    if names:
        told = (f"{len(found)} {state} ({', '.join(found)})" for state, found in names.items())
        print(f"not counted: {', '.join(told)}")


# ---------------------------------------------------------------------------------------------- which are points


def select(rows: Sequence[Row], conditions: Sequence[str]) -> list[Row]:
    """Finished, and as --where wants it."""
    finished = [row for row in rows if row.state == FINISHED]
    for condition in conditions:
        name, equals, wanted = condition.partition("=")
        if not equals:
            raise Refusal(f"--where {condition} is not of the form PARAMETER=VALUE")
        must_be_known(name, {node for row in finished for node in experiments.nodes(row.params)}, "parameter")
        found = {id(row): experiments.reach(row.params, name) for row in finished}
        finished = [
            row for row in finished if found[id(row)] is not MISSING and studies.label(place(found[id(row)])) == wanted
        ]
    return finished


def choose(finished: Sequence[Row], axes: Sequence[str], values: Sequence[str], mixed: bool) -> list[Row]:
    """The rows that belong in one picture, each run once."""
    if all(row.baseline for row in finished) and len(finished) < 3:
        raise Refusal("no experiment is finished: `dvc exp run --queue -S ...` and `dvc queue start` make some")
    for axis in axes:
        must_be_known(axis, {name for row in finished for name in experiments.nodes(row.params)}, "parameter")
    for value in values:
        must_be_known(value, {name for row in finished for name in row.metrics}, "metric")
    makers = [stage for value in values for stage in experiments.makers(value)]
    relevant = {entry for stage in makers for entry in stage.params}

    def others(row: Row) -> Params:
        """What may not differ: parameters of the stages that made the value, but not the axes."""
        return {
            name: leaf
            for name, leaf in experiments.flat(row.params).items()
            if (not relevant or under(name, relevant)) and not under(name, axes)
        }

    has_all = keep(
        finished,
        f"without {' or '.join((*axes, *values))}",
        lambda row: bool(measured(row, values)) and MISSING not in [experiments.reach(row.params, a) for a in axes],
    )
    current = keep(
        has_all,
        f"since {' or '.join(values)} is older than their parameters",
        lambda row: experiments.is_current(row, makers),
    )
    alike = current if mixed else comparable(current, others)
    once = keep_once(alike, lambda row: [others(row), places(row, axes), [row.metrics.get(value) for value in values]])
    for value in values:
        if not any(measured(row, [value]) for row in once):
            raise Refusal(f"none of the experiments that can be shown has a number for {value}: leave it out")
    if len(once) < 2:
        raise Refusal(f"a study needs two points at least, and here {len(once)} can be shown")
    return once


def must_be_known(name: str, known: Collection[str], kind: str) -> None:
    if name not in known:
        near = get_close_matches(name, sorted(known), n=NEAR, cutoff=0.5)
        hint = f"near it: {', '.join(near)}" if near else f"`dvc exp show` lists all {kind}s"
        raise Refusal(f"no finished experiment has the {kind} {name}; {hint}")


def keep(rows: Sequence[Row], lack: str, wanted: Callable[[Row], bool]) -> list[Row]:
    """Whoever is left out is named."""
    kept = [row for row in rows if wanted(row)]
    lost = [row.name for row in rows if row not in kept]
    if lost:
        print(f"left out, {lack}: {', '.join(lost)}")
    return kept


def comparable(rows: Sequence[Row], others: Callable[[Row], Params]) -> list[Row]:
    """Experiments must differ in the axes alone; a baseline that does not fit them was made for something else."""
    made = [row for row in rows if not row.baseline] or list(rows)
    everything = [others(row) for row in made]
    names = dict.fromkeys(name for one in everything for name in one)
    unlike = [
        name for name in names if any(one.get(name, MISSING) != everything[0].get(name, MISSING) for one in everything)
    ]
    if unlike:
        more = f" and {len(unlike) - LISTED} more" if len(unlike) > LISTED else ""
        raise Refusal(
            f"the experiments differ in more than the axes: {', '.join(unlike[:LISTED])}{more}; take one of them as an "
            f"axis, choose (--where {unlike[0]}=...), or allow it with --mixed"
        )
    return keep(rows, "with other parameters than the experiments", lambda row: others(row) == everything[0])


def keep_once(rows: Sequence[Row], identity: Callable[[Row], Any]) -> list[Row]:
    """Equal parameters and an equal result are one run seen twice, and no evidence more than one."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(json.dumps(identity(row), sort_keys=True), row)
    return list(found.values())


def under(name: str, roots: Collection[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ------------------------------------------------------------------------------------------------- what is written


def point(row: Row, axes: Sequence[str], values: Sequence[str]) -> Point:
    return Point(experiment=row.name, at=places(row, axes), found=measured(row, values))


def measured(row: Row, values: Sequence[str]) -> dict[str, Measured]:
    """Those metrics that are numbers: a control that did not learn has none."""
    return {value: measure(row, value) for value in values if is_number(row.metrics.get(value))}


def measure(row: Row, value: str) -> Measured:
    """Beside gain_on_val stand gain_low, gain_high and verdict; beside a plain gain low, high and verdict; beside
    another metric its own _low and _high."""
    section, _, last = value.rpartition(".")
    stem = f"{section}." if last == "gain" else f"{value.removesuffix('_on_val')}_"
    low, high = (row.metrics.get(f"{stem}{end}") for end in ("low", "high"))
    certain = is_number(low) and is_number(high)
    return Measured(
        value=row.metrics[value],
        low=low if certain else None,
        high=high if certain else None,
        verdict=row.metrics.get(f"{section}.verdict") if Metric(value).is_gain else None,
    )


def places(row: Row, axes: Sequence[str]) -> dict[str, Place]:
    return {axis: place(experiments.reach(row.params, axis)) for axis in axes}


def place(value: Any) -> Place:
    """A method or a network by its name and numbers."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, list):
        return " + ".join(studies.label(place(one)) for one in value)
    if isinstance(value, dict):
        numbers = ", ".join(
            f"{key} {studies.label(place(one))}" for key, one in value.items() if key != "name" and one != {}
        )
        return ": ".join(filter(None, (value.get("name"), numbers)))
    return value


def write(name: str, study: Study) -> None:
    """Every point as JSON, every place and metric as CSV."""
    files.write_json(FOLDER / f"{name}.json", study.model_dump(by_alias=True))
    rows = [
        dict(zip(study.axes, cell.at, strict=True))
        | {"metric": metric.name, "value": cell.value, "n": cell.n, "sd": cell.sd, "low": cell.low, "high": cell.high}
        | {"verdict": cell.verdict, "experiments": " ".join(cell.experiments)}
        for metric in study.metrics
        for cell in studies.cells(study, metric)
    ]
    tables.write(FOLDER / f"{name}.csv", list(rows[0]), rows)


# -------------------------------------------------------------------------------------------------- what is shown


def show(study: Study) -> None:
    console = Console()
    if len(study.values) > 1:
        console.print(lines(study))
    else:
        draw = heat_map if study.y else listing
        console.print(draw(study, *study.metrics))
    console.print(f"{FOLDER}/ has it; `dvc repro report` shows it on the page", highlight=False)


def lines(study: Study) -> Table:
    """A column for each metric, and nothing where it was not measured."""
    table = Table(title=study.title)
    table.add_column(study.x, overflow="fold")
    for name in studies.legend(study.values):
        table.add_column(name, justify="right")
    for place, cells in studies.lines(study):
        pairs = zip(cells, study.metrics, strict=True)
        table.add_row(studies.label(place), *(told(cell, metric) if cell else "" for cell, metric in pairs))
    return table


def told(cell: Cell, metric: Metric) -> str:
    sure = studies.sureness(cell, metric)
    return " ".join(filter(None, (studies.said(cell.value, metric), sure, f"(n = {cell.n})" if cell.n > 1 else "")))


def listing(study: Study, metric: Metric) -> Table:
    table = Table(title=study.title)
    table.add_column(study.x, overflow="fold")
    for column in (metric.unit, "interval, or sd", "n"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for cell in studies.cells(study, metric):
        known = studies.said(cell.value, metric), studies.sureness(cell, metric), str(cell.n), cell.verdict
        table.add_row(studies.label(cell.at[0]), *known)
    return table


def heat_map(study: Study, metric: Metric) -> Table:
    """As on the report: deep is much, and a gain in brackets is not shown."""
    found = {cell.at: cell for cell in studies.cells(study, metric)}
    across, down = (studies.along(study, axis) for axis in study.axes)
    caption = "in brackets: not shown, its interval includes zero or there is none" if metric.is_gain else None
    table = Table(title=f"{study.title} ({metric.unit})", caption=caption, padding=0)
    table.add_column(f"{study.y} \\ {study.x}", overflow="fold")
    for one in across:
        table.add_column(studies.label(one), justify="center")
    most = max(abs(cell.value) for cell in found.values()) or 1.0
    least = min(cell.value for cell in found.values())
    for other in reversed(down):
        cells = (found.get((one, other)) for one in across)
        table.add_row(studies.label(other), *(painted(cell, metric, least, most) for cell in cells))
    return table


def painted(cell: Cell | None, metric: Metric, least: float, most: float) -> Text:
    if cell is None:
        return Text("")
    text = studies.said(cell.value, metric)
    if metric.is_gain:
        share, colour = abs(cell.value) / most, GAIN if cell.value >= 0 else LOSS
        text = text if cell.shown else f"({text})"
    else:
        share, colour = (cell.value - least) / ((most - least) or 1.0), PLAIN
    depth = PALEST + (DEEPEST - PALEST) * share
    mixed = (round(paper + (full - paper) * depth) for paper, full in zip(PAPER, colour, strict=True))
    return Text(f" {text} ", style=f"black on rgb({','.join(map(str, mixed))})")
