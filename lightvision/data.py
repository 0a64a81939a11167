"""`lightvision data`: look at a data set before anything is learnt from it, and fetch the public ones."""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from stages.core import params
from stages.core.datacard import console
from stages.core.datasets import downloads, findings, sources, surveying
from stages.core.datasets.findings import Survey
from stages.core.datasets.splits import EXCLUDED
from stages.core.running.errors import Refusal
from stages.core.running.journal import home
from stages.core.running.sources import ROOT

LENIENT = params.Policy(broken="skip", conflicts="exclude", small_classes="exclude", near_copies="report")


def add_check(members: Any, action: str) -> None:
    text = "Print what prepare would find in PATH, and end with status 1 where it would stop."
    parser: argparse.ArgumentParser = members.add_parser(action, help=text, description=text, allow_abbrev=False)
    parser.add_argument("path", type=Path, help="folder, CSV, .npz, or a zip or tar of those")
    parser.add_argument("--source", choices=sorted(sources.SOURCES), help="how to read it; guessed if not given")
    parser.set_defaults(run=check)


def add_fetch(members: Any, action: str) -> None:
    text = "Download a public data set, verify it, and say how to use it."
    parser: argparse.ArgumentParser = members.add_parser(action, help=text, description=text, allow_abbrev=False)
    parser.add_argument("name", choices=sorted(downloads.DOWNLOADS))
    parser.set_defaults(run=fetch)


def check(path: Path, source: str | None) -> int:
    here = settings()
    chosen = params.source(source, str(path)) if source else sources.guess(path, home())
    listing = sources.listing(chosen, home())
    with tempfile.TemporaryDirectory() as folder:
        lenient = here.prepare.model_copy(update={"source": chosen, "policy": LENIENT})
        survey = surveying.survey(listing, lenient, here.seed, Path(folder) / "pixels")
    details = findings.details(survey) | {"image_size": here.prepare.image_size}
    console.show(details, findings.metrics(survey), Console())
    problems = list(_problems(survey, here.prepare.policy))
    for problem in problems:
        print(f"prepare would stop: {problem}")
    if not problems:
        print("prepare would not stop: nothing here is against the policy in params.yaml (prepare.policy)")
    return 1 if problems else 0


def fetch(name: str) -> int:
    path = downloads.fetch(name, home())
    print(f"{path}\nin params.yaml: source: {{name: {name}, path: null}}")
    return 0


def settings() -> params.Params:
    """Of the folder that a person works in, or else the project's own."""
    here = Path("params.yaml")
    return params.load(here if here.is_file() else ROOT / "params.yaml")


def _problems(survey: Survey, policy: params.Policy) -> Iterator[str]:
    found: Mapping[str, Any] = findings.metrics(survey)
    if policy.broken == "stop" and found["broken"]:
        yield f"{found['broken']} pictures cannot be read (prepare.policy.broken)"
    if policy.conflicts == "stop" and found["conflicting_labels"]:
        yield f"{found['conflicting_labels']} pictures bear several labels (prepare.policy.conflicts)"
    pairs = zip(survey.listing.items, survey.places, strict=True)
    small = set(range(len(survey.listing.classes))) - {item.label for item, place in pairs if place.split != EXCLUDED}
    if policy.small_classes == "stop" and small:
        names = ", ".join(survey.listing.classes[label] for label in sorted(small)[:5])
        yield f"{len(small)} classes have too few pictures, among them {names} (prepare.policy.small_classes)"
    try:
        surveying.class_numbers(survey)
    except Refusal as refusal:
        yield str(refusal)


COMMANDS = {"check": add_check, "fetch": add_fetch}
