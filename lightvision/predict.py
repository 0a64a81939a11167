"""`lightvision predict`: what a network says of pictures; for a file it needs ONNX Runtime, numpy and Pillow alone."""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightvision.answered import Lines, Table, Told, csv_file
from lightvision.asked import load
from lightvision.waiting import Progress
from stages.core.predicting.classifying import Answer, Classifier
from stages.core.predicting.errors import Unusable
from stages.core.predicting.finding import Found, find
from stages.core.predicting.wording import shown
from stages.core.running.errors import Refusal

__all__ = ["load"]

STDIN = "-"
TOP = 3
NAMED = 5  # files that are left out, of any number


def add(members: Any, action: str) -> None:
    text = (
        "Say what pictures show: path, class, probability and the runners-up. Exit status 1 where a picture could not "
        "be read; the others are answered."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument(
        "model", metavar="MODEL", help="an exported or converted file, a folder of such, or the folder of a network"
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help=f"files, folders, or {STDIN} for paths on standard input",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table with the probability of every class")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, instead of the table")
    parser.add_argument("--top", type=_positive, default=TOP, metavar="K", help=f"classes that are told; {TOP}")
    parser.add_argument("--batch", type=_positive, metavar="N", help="pictures that are asked about at a time")
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def run(model: str, images: Sequence[str], csv: Path | None, json: bool, top: int, batch: int | None) -> int:
    warnings.simplefilter("ignore")  # a damaged picture is named, and libraries warn their own developers
    classifier = load(model)
    found = find([name for given in images for name in (_from_stdin() if given == STDIN else [given])])
    _complain(found)
    if not found.pictures:
        raise Refusal("there is no picture among what was named")
    if Path(classifier.file) != Path(model):
        _say(f"{model}: asking {classifier.file}")
    with ExitStack() as files:
        told: list[Told] = [Lines(sys.stdout)] if json else []
        if csv:
            told.append(files.enter_context(csv_file(csv, classifier.classes)))
        failed = _tell(classifier, found, told or [Table(sys.stdout, found.pictures, classifier.classes)], top, batch)
    if csv and not json:
        answered = f"{len(found.pictures) - failed:,} of {len(found.pictures):,} pictures are answered"
        print(f"{shown(str(csv))}: {answered}", flush=True)
    if failed:
        _say(f"{failed:,} of {len(found.pictures):,} pictures could not be read")
    return 1 if failed or found.closed else 0


def _tell(classifier: Classifier, found: Found, told: Sequence[Told], top: int, batch: int | None) -> int:
    """How many could not be read."""
    failed, progress = 0, Progress(len(found.pictures))
    try:
        for answer in _answers(classifier, found.pictures, top, batch):
            progress.advance()
            if answer.problem:
                failed += 1
                progress.clear()
                _say(f"{answer.asked}: {answer.problem}")
            elif sys.stdout.isatty():
                progress.clear()
            for one in told:
                one.tell(answer)
        sys.stdout.flush()
    finally:
        progress.clear()
    return failed


def _answers(classifier: Classifier, pictures: Sequence[str], top: int, batch: int | None) -> Iterator[Answer]:
    try:
        yield from classifier.answers(pictures, top, batch)
    except Unusable as problem:
        raise Refusal(str(problem)) from problem


def _from_stdin() -> list[str]:
    """A path a line, or with `find -print0` whatever the names hold."""
    given = sys.stdin.buffer.read()
    return [os.fsdecode(name) for name in given.split(b"\0" if b"\0" in given else b"\n") if name]


def _complain(found: Found) -> None:
    for folder, why in found.closed.items():
        _say(f"{folder}: {why}")
    if found.others:
        names = ", ".join(found.others[:NAMED])
        more = f" and {len(found.others) - NAMED:,} more" if len(found.others) > NAMED else ""
        _say(f"left out for their endings ({len(found.others):,}): {names}{more}")


def _say(line: str) -> None:
    print(f"lightvision: {shown(line)}", file=sys.stderr, flush=True)
