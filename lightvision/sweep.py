"""`lightvision sweep`: how far a result is a matter of the seed, in one command."""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

from lightvision import data, gathering, points
from lightvision.comparing import Question, compare
from lightvision.gathering import Compare, Plan
from lightvision.points import Point
from stages.core.reporting.findings import NETWORKS
from stages.core.reporting.sweeps import Comparison, Run
from stages.core.running.errors import Refusal

SEEDS = 5
WHOLE = ("evaluate", "benchmark")
PAIRS = (
    ("student", "teacher"),
    ("student", "control"),
    ("pruned", "student"),
    ("quantized", "pruned"),
    ("quantized", "teacher"),
)
ON_TEST = {name: f"evaluate.{name}.accuracy" for name in NETWORKS}
ON_VAL = {
    "teacher": "train_teacher.val_accuracy",
    "control": "distill.control.val_accuracy",
    "student": "distill.student.val_accuracy",
    "pruned": "prune.val_accuracy",
    "quantized": "quantize.val_accuracy",
}
COSTS = {"bytes": "bytes", "milliseconds, one thread": "one_thread.median"}  # in metrics/benchmark.json, of each file


TEXT = "Run what is not there yet of several seeds or folds, and say what is the same in all of them."


def add(members: Any, action: str) -> None:
    parser: argparse.ArgumentParser = members.add_parser(action, description=TEXT, allow_abbrev=False)
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, help=f"0, 1, 2 ...: {SEEDS} if not given, 1 beside --folds")
    parser.add_argument("--folds", type=int, default=1, help="cross-validation: each seed once for each fold")
    parser.add_argument("--name", default="seeds", help=f"of its files in {gathering.FOLDER}")
    parser.add_argument("--to", metavar="STAGE", help="the last stage that runs; all if not given")
    add_shared(parser)
    parser.add_argument(
        "--margin", type=float, default=1.0, metavar="POINTS", help="of accuracy, that makes no difference"
    )


def add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-S", dest="sets", action="append", default=[], metavar="PARAMETER=VALUE", help="for every point, as DVC's own"
    )
    parser.add_argument("--dry", action="store_true", help="only list what is there and what would run")


def run(dry: bool, **asked: Any) -> int:
    return gathering.carry_out(*plan(**asked), dry)


def plan(
    seeds: int | None, folds: int, name: str, to: str | None, sets: list[str], margin: float
) -> tuple[Plan, Compare]:
    gathering.check_name(name)
    numbers = grid(seeds, folds)
    if not 0 < margin < 100:
        raise Refusal(f"--margin is in points, between 0 and 100, not {margin:g}")
    targets = [to] if to else list(WHOLE)
    stages = points.needed(targets)
    wanted = [points.point("", seed, fold, [*sets, *folded(folds)], stages) for seed, fold in numbers]
    confidence = data.settings().evaluate.confidence
    planned = Plan(
        name=name,
        kind="seeds",
        title=f"{name}, {_counted(wanted)}",
        about=" ".join(f"-S {one}" for one in sets),
        points=wanted,
        targets=targets,
        confidence=confidence,
    )
    return planned, lambda runs: comparisons(runs, margin / 100, confidence)


def grid(seeds: int | None, folds: int) -> list[tuple[int, int | None]]:
    """Seeds and folds of the points."""
    count = seeds if seeds is not None else SEEDS if folds == 1 else 1
    if count < 1 or folds < 1:
        raise Refusal("--seeds and --folds count from 1")
    return list(itertools.product(range(count), range(folds) if folds > 1 else [None]))


def folded(folds: int) -> list[str]:
    """What folds set in params.yaml."""
    return [f"prepare.folds={folds}"] if folds > 1 else []


def _counted(wanted: Sequence[Point]) -> str:
    seeds, folds = ({getattr(point, kind) for point in wanted} - {None} for kind in ("seed", "fold"))
    told = [f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}", f"{len(folds)} folds" if folds else ""]
    return ", ".join(filter(None, told))


def comparisons(runs: Sequence[Run], margin: float, confidence: float) -> list[Comparison]:
    """Accuracy on test where it was measured, else on val; what files cost beside it."""
    measured = [
        ("accuracy on test", ON_TEST, margin),
        *((title, {name: f"benchmark.files.{name}.{key}" for name in NETWORKS}, None) for title, key in COSTS.items()),
    ]
    if not any(gathering.values(runs, metric) for metric in ON_TEST.values()):
        measured[0] = ("accuracy on val", ON_VAL, margin)
    found: list[Comparison] = []
    for title, metrics, tolerance in measured:
        series = {name: gathering.values(runs, metric) for name, metric in metrics.items()}
        series = {name: values for name, values in series.items() if values}
        if series:
            pairs = [pair for pair in PAIRS if tolerance and series.keys() >= set(pair)]
            found.append(compare(Question(title, bool(tolerance), tolerance, confidence), series, pairs))
    if not found:
        raise Refusal(
            "none of these runs measured the accuracy or the cost of a network: go on to a later stage (--to)"
        )
    return found
