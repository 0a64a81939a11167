"""Points become experiments, experiments become a sweep: files for git, tables for the terminal."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightvision import attempts, experiments, points
from lightvision.experiments import Row
from lightvision.points import Point
from lightvision.study import NAME, is_number
from stages.core import hardware, statistics, tables, words
from stages.core.reporting import sweeps
from stages.core.reporting.sweeps import Comparison, Failure, Run, Sweep
from stages.core.running import files, progress
from stages.core.running.errors import Refusal

FOLDER = Path("metrics/sweeps")
LISTED = 3  # files that a refusal names
TEST, MACHINE = "evaluate.test", "benchmark.machine.cpu"


@dataclass(frozen=True)
class Plan:
    """`targets` are stages that dvc.yaml knows; all they depend on runs too."""

    name: str
    kind: str
    title: str
    about: str
    points: Sequence[Point]
    targets: Sequence[str]
    confidence: float


Compare = Callable[[Sequence[Run]], list[Comparison]]
Attempt = Callable[[str, Sequence[Point], Sequence[str]], dict[str, str]]  # as attempts.run


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Refusal(f"a sweep's name is small letters, digits, - and _, not {name!r}")


def carry_out(plan: Plan, compare: Compare, dry: bool, attempt: Attempt | None = None) -> int:
    """Exit status 1 if a point failed; what has finished is gathered all the same."""
    needed = points.needed(plan.targets)
    there = points.there(needed)
    missing = list({point.digest: point for point in plan.points if point.digest not in there}.values())
    if dry:
        list_points(plan, there)
        return 0
    if dirty := experiments.uncommitted(needed):
        raise Refusal(f"commit {words.listed(dirty[:LISTED])} first: an experiment belongs to a commit and its code")
    progress.note(f"{plan.name}: {told(len(plan.points) - _lacking(plan, there), len(missing))}")
    why = (attempt or attempts.run)(plan.name, missing, plan.targets)
    there = points.there(needed)
    failed = [
        Failure(
            row=point.row, seed=point.seed, fold=point.fold, reason=why.get(point.digest, "its result is not there")
        )
        for point in plan.points
        if point.digest not in there
    ]
    for one in failed:
        progress.note(
            f"failed: {', '.join(filter(None, (one.row, f'seed {one.seed}', _fold(one.fold))))}: {one.reason}"
        )
    runs = gather([(point, there[point.digest]) for point in plan.points if point.digest in there])
    if not runs:
        raise Refusal(f"none of the {len(plan.points)} experiments finished")
    sweep = Sweep(
        schema=1,
        kind=plan.kind,  # pyright: ignore[reportArgumentType]
        title=plan.title,
        about=plan.about,
        varied=varied(runs),
        confidence=plan.confidence,
        power=statistics.POWER,
        runs=runs,
        failed=failed,
        comparisons=compare(runs),
        commit=experiments.head(),
        machine=hardware.describe(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    write(plan.name, sweep)
    show(plan.name, sweep)
    return 1 if failed else 0


def told(found: int, missing: int) -> str:
    return f"{words.plural(found, 'experiment')} there already, {missing} to run"


def _lacking(plan: Plan, there: Mapping[str, Row]) -> int:
    return sum(1 for point in plan.points if point.digest not in there)


def _fold(fold: int | None) -> str:
    return "" if fold is None else f"fold {fold}"


def list_points(plan: Plan, there: Mapping[str, Row]) -> None:
    table = Table(title=f"{plan.title}, as far as {' and '.join(plan.targets)}")
    for column in ("row", "point", "experiment", "parameters"):
        table.add_column(column, overflow="fold")
    for point in plan.points:
        row = there.get(point.digest)
        table.add_row(point.row, point.key, row.name if row else "to run", " ".join(point.sets))
    Console().print(table)


# ---------------------------------------------------------------------------------------------- what is written


def gather(found: Sequence[tuple[Point, Row]]) -> list[Run]:
    flat = [experiments.flat(row.params) for _, row in found]
    names = dict.fromkeys(name for one in flat for name in one)
    unlike = [name for name in names if any(one.get(name) != flat[0].get(name) for one in flat)]
    return [
        Run(
            row=point.row,
            seed=point.seed,
            fold=point.fold,
            experiment=row.name,
            rev=row.rev,
            machine=row.metrics.get(MACHINE),
            test=row.metrics.get(TEST),
            params={name: content.get(name) for name in unlike},
            metrics={name: value for name, value in row.metrics.items() if is_number(value)},
        )
        for (point, row), content in zip(found, flat, strict=True)
    ]


def varied(runs: Sequence[Run]) -> str:
    """Everything that a seed can change, and no less: what is held fixed makes a spread look small (Bouthillier et al.
    2021)."""
    tests = {run.test for run in runs}
    same = "; the test pictures are the same" if len(tests) == 1 and None not in tests else ""
    folds = len({run.fold for run in runs}) > 1
    overlap = "; folds share training pictures, so that intervals are too narrow (Nadeau and Bengio 2003)"
    return f"seeds vary split, start and order{same}{overlap if folds else ''}"


def values(runs: Sequence[Run], metric: str, row: str | None = None) -> dict[str, float]:
    """By seed, where it was measured."""
    return {key(run): float(run.metrics[metric]) for run in runs if metric in run.metrics and row in (None, run.row)}


def key(run: Run) -> str:
    return Point(run.row, run.seed, run.fold, (), "").key


def write(name: str, sweep: Sweep) -> None:
    """Everything as JSON, a line for each run as CSV."""
    files.write_json(FOLDER / f"{name}.json", sweep.model_dump(by_alias=True))
    rows: list[dict[str, Any]] = [
        {"row": run.row, "seed": run.seed, "fold": run.fold, "experiment": run.experiment, "rev": run.rev}
        | {"test": run.test, "machine": run.machine}
        | run.params
        | run.metrics
        for run in sweep.runs
    ]
    tables.write(FOLDER / f"{name}.csv", list(dict.fromkeys(name for row in rows for name in row)), rows)


# ------------------------------------------------------------------------------------------------ what is shown


def show(name: str, sweep: Sweep) -> None:
    console = Console()
    console.print(f"{sweep.title}: {sweep.varied}", highlight=False, soft_wrap=True)
    for one in sweep.comparisons:
        console.print(each(one, sweep))
        if one.pairs:
            console.print(*pairs(one))
            console.print(sweeps.caption(one, sweep), highlight=False, soft_wrap=True)
    console.print(f"{FOLDER}/{name}.json and .csv have it; `dvc repro report` shows it on the page", highlight=False)


def each(one: Comparison, sweep: Sweep) -> Table:
    table = Table(title=sweeps.units(one))
    table.add_column("", overflow="fold")
    for column in ("n", "mean", "sd", f"t, {words.level(sweep.confidence)}", "bootstrap", ""):
        table.add_column(column, justify="right" if column else "left")
    for series in one.series:
        table.add_row(series.name, *sweeps.summary(series, one))
    return table


def pairs(one: Comparison) -> list[Table]:
    """What is decided, then by what: side by side they are wider than a terminal."""
    tables = [Table(title=f"{sweeps.units(one)}: differences"), Table(title="and their tests")]
    for table, columns, cells in zip(
        tables, (sweeps.DECIDED, sweeps.TESTED), (sweeps.decided, sweeps.tested), strict=True
    ):
        table.add_column("", overflow="fold")
        for column in columns:
            table.add_column(column, justify="left" if column == "verdict" else "right")
        for pair in one.pairs:
            table.add_row(sweeps.named(pair), *cells(pair, one))
    return tables
