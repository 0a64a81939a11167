"""`lightvision check`: does a file keep to a budget? For a person, and for a CI that must not let a larger one pass."""

import argparse
from pathlib import Path
from typing import Any

from lightvision import finding
from lightvision.revisions import WORKSPACE
from stages.core import choosing, params, words
from stages.core.running.errors import Refusal


def add(members: Any, action: str) -> None:
    text = "Hold one file of a run against a file of limits, a line for each; exit status 1 where one fails."
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument("name", nargs="?", default=WORKSPACE, metavar="RUN", help="as in `lightvision compare`")
    parser.add_argument("--budget", type=Path, required=True, help="such as docs/examples/edge.yaml")
    parser.add_argument("--file", default="quantized", help="quantized if not given")
    parser.set_defaults(run=run)


def run(name: str, budget: Path, file: str) -> int:
    limits = params.load_budget(budget)
    found = finding.named(name)
    candidates = {candidate.name: candidate for candidate in found.candidates()}
    if file not in candidates:
        raise Refusal(f"{found.name} has no file {file}; it has {', '.join(sorted(candidates))}")
    lines = choosing.judge(candidates[file], limits)
    for line in lines:
        print(line.said)
    failed = sum(not line.passed for line in lines)
    verdict = f"fails {failed} of {words.plural(len(lines), 'limit')}" if failed else "keeps to all of it"
    print(f"{file} of {found.name}, measured on {found.machine}: {budget} {verdict}")
    return 1 if failed else 0
