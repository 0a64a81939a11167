"""`lightvision best`: of all files of all runs, the one that keeps to a budget."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightvision import remembered, revisions, runs
from lightvision.data import settings
from lightvision.runs import SHIPPED, Run
from stages.core import choosing, params, words
from stages.core.choosing import LIMITS, Candidate
from stages.core.running.errors import Refusal

SHOWN = ("megabytes", "milliseconds", "accuracy", "drop")  # whether they are limited or not


@dataclass(frozen=True)
class File:
    """One file of one run; the candidate's name says both."""

    run: Run
    file: str
    candidate: Candidate

    @property
    def on_test(self) -> str:
        facts = self.run.metrics["benchmark"]["files"][self.file]
        return f"{words.percent(facts['accuracy'])} {words.interval(facts['accuracy_low'], facts['accuracy_high'])}"


def add(members: Any, action: str) -> None:
    text = (
        "Of all files of all DVC experiments, commits and MLflow runs here: which keep to the limits, and which is "
        "best. Without limits, those of report.budget in params.yaml. Exit status 1 where none does."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    add_limits(parser)
    parser.add_argument("--rev", action="append", metavar="COMMIT", help="whose experiments; all if not given")
    parser.add_argument(
        "--mlflow", metavar="URI", help="where MLflow is; MLFLOW_TRACKING_URI or mlflow.db if not given"
    )
    parser.add_argument("--no-mlflow", action="store_true", help="do not ask MLflow")
    parser.set_defaults(run=run)


def add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-mb", type=float, metavar="N", help="megabytes, which are millions of bytes")
    parser.add_argument("--max-ms", type=float, metavar="N", help="milliseconds a picture, at one thread")
    parser.add_argument("--max-macs", type=float, metavar="N", help="multiply-accumulates a picture, such as 3e6")
    parser.add_argument("--max-joules", type=float, metavar="N", help="a picture")
    parser.add_argument("--max-drop", type=float, metavar="N", help="points of the teacher's accuracy on val")
    parser.add_argument("--min-accuracy", type=float, metavar="N", help="per cent, on val")


def run(rev: list[str] | None, mlflow: str | None, no_mlflow: bool, **limits: float | None) -> int:
    budget = budgeted(**limits)
    if budget is None:
        budget = settings().report.budget
        print("no limits on the command line: those of report.budget in params.yaml")
    files = gather(sure(revisions.every(rev or [])), mlflow, not no_mlflow)
    tell_apart([file.run for file in files])
    Console().print(table(files, budget))
    return told(files, budget)


def budgeted(
    max_mb: float | None = None,
    max_ms: float | None = None,
    max_macs: float | None = None,
    max_joules: float | None = None,
    max_drop: float | None = None,
    min_accuracy: float | None = None,
) -> params.Budget | None:
    """What the command line limits, if anything."""
    if min_accuracy is not None and 0 < min_accuracy <= 1:
        raise Refusal(f"--min-accuracy is per cent: {min_accuracy * 100:g}, not {min_accuracy:g}")
    asked = {
        "megabytes": max_mb,
        "macs": max_macs,
        "milliseconds": max_ms,
        "joules": max_joules,
        "accuracy": None if min_accuracy is None else min_accuracy / 100,
        "drop": None if max_drop is None else max_drop / 100,
    }
    return params.limits(asked, "the command line") if any(limit is not None for limit in asked.values()) else None


def sure(found: Iterable[Run]) -> list[Run]:
    """Runs whose metrics are their own; others are named."""
    kept: list[Run] = []
    lost: dict[str, list[str]] = {}
    for one in found:
        reasons = [one.lacks[stage] for stage in ("export", "benchmark") if stage in one.lacks]
        if reasons:
            lost.setdefault(reasons[0], []).append(one.name)
        else:
            kept.append(one)
    for reason, names in lost.items():
        print(f"left out, {reason}: {', '.join(names)}")
    return kept


def gather(found: list[Run], mlflow: str | None, ask: bool) -> list[File]:
    if ask:
        try:
            found += sure(remembered.every(mlflow))
        except Refusal as refusal:
            print(f"{refusal}; DVC's experiments are looked at alone")
    files = [
        File(one, candidate.name, replace(candidate, name=f"{one.name}: {candidate.name}"))
        for one in runs.once(found)
        for candidate in one.candidates()
    ]
    if not files:
        raise Refusal("no run here has measured files: `dvc repro benchmark` or `dvc exp run` makes some")
    return files


def tell_apart(found: Sequence[Run]) -> None:
    """What cannot be ranked together must not seem to be."""
    machines = dict.fromkeys(one.machine for one in found)
    if len(machines) > 1:
        print(f"milliseconds of {len(machines)} machines, which say nothing of each other:")
        for machine in machines:
            names = dict.fromkeys(one.name for one in found if one.machine == machine)
            print(f"  {machine}: {', '.join(names)}")
    if len({one.pictures for one in found}) > 1:
        print("val pictures may be others from run to run: prepare, seed or the test pictures differ, or are not told")
        for pictures in dict.fromkeys(one.pictures for one in found):
            print(f"  alike: {', '.join(dict.fromkeys(one.name for one in found if one.pictures == pictures))}")


def table(files: Sequence[File], budget: params.Budget) -> Table:
    """What keeps to every limit comes first, the smallest of it above."""
    limited = choosing.limited(budget)
    shown = [name for name in LIMITS if name in SHOWN or name in limited]
    table = Table(title=f"{words.plural(len(files), 'file')}, against {words.plural(len(limited), 'limit')}")
    table.add_column("run: file", overflow="fold")
    for name in shown:
        asked = (
            f"\nat {'least' if LIMITS[name].least else 'most'} {LIMITS[name].told(limited[name])}"
            if name in limited
            else ""
        )
        table.add_column(LIMITS[name].title + asked, justify="right")
    table.add_column("accuracy on test\n(chooses nothing)", justify="right")
    for file in sorted(files, key=lambda file: (not choosing.passes(file.candidate, budget), file.candidate.bytes)):
        passed = {line.name: " passes" if line.passed else " FAILS" for line in choosing.judge(file.candidate, budget)}
        cells = (f"{_cell(name, file.candidate, limited.get(name))}{passed.get(name, '')}" for name in shown)
        table.add_row(file.candidate.name, *cells, file.on_test)
    return table


def _cell(name: str, candidate: Candidate, limit: float | None) -> str:
    found = LIMITS[name].found(candidate)
    return "not measured" if found is None else LIMITS[name].judged(found, limit)


def told(files: Sequence[File], budget: params.Budget) -> int:
    candidates = [file.candidate for file in files]
    chosen = choosing.best(candidates, budget)
    taken = chosen or choosing.nearest(candidates, budget)
    [file] = [file for file in files if file.candidate is taken]
    if chosen is None:
        print(f"no file keeps to every limit; {taken.name} is nearest, and stopped by")
        for line in choosing.judge(taken, budget):
            if not line.passed:
                print(f"  {line.said}")
        return 1
    print(f"best: {taken.name}, {file.on_test} of the test pictures right, measured on {file.run.machine}")
    print(f"  {file.run.get(str(Path(SHIPPED) / f'{file.file}.onnx'))}")
    return 0
