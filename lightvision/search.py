"""`lightvision search`: the student, the cut and the bits that keep to a budget, looked for together."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from lightvision import best
from lightvision.sweep import add_shared

TEXT = "Look for the file that keeps to a budget best: points of a space of parameters, each a measured experiment."
POINTS, AT_ONCE = 24, 4


def add(members: Any, action: str) -> None:
    parser: argparse.ArgumentParser = members.add_parser(action, description=TEXT, allow_abbrev=False)
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    best.add_limits(parser)
    parser.add_argument("--name", default="search", help="with which its experiments' names begin")
    parser.add_argument("--space", type=Path, default=Path("studies/search.yaml"), help="what may be changed, a file")
    parser.add_argument("--points", type=int, default=POINTS, help=f"that are tried, {POINTS} if not given")
    parser.add_argument(
        "--at-once",
        type=int,
        help=f"points that are under way together: {AT_ONCE} on a cluster and 1 here if not given",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the search; that of the points is in params.yaml")
    parser.add_argument(
        "--halving",
        default="",
        metavar="PARAMETER=A,B,C",
        help="all points with A first, the best third of them with B, and so on: distill.training.epochs=2,5,10",
    )
    add_shared(parser)
    parser.add_argument("--cluster", action="store_true", help="on the workers of the server at PREFECT_API_URL")
    parser.add_argument("--detach", action="store_true", help="do not wait for the cluster")
    parser.add_argument("--queue", choices=("high", "default", "low"), help="of the cluster's pools")


def run(**asked: Any) -> int:
    """In Prefect's hands, in the place of this process, so that it hears itself what a keyboard says."""
    os.execv(sys.executable, [sys.executable, "-m", "flows.search", *sys.argv[2:]])  # noqa: S606
