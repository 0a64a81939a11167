"""What a search came to, in words: the best file with all that is known of it, or which came nearest; and the rest."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.core.coordinator import Fate, Point
from flows.core.pursuit import BENCHMARK, TIMED, Pursuit
from flows.core.searching import Entry, front
from lightvision import revisions
from stages.core import choosing, statistics, words
from stages.core.choosing import Candidate

MADE_WITH = "parameters"


@dataclass(frozen=True)
class Verdict:
    """`found` is whether a file keeps to the budget; rows are the files that no other beats in everything."""

    found: bool
    said: Sequence[str]
    rows: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Choice:
    """A file of a point."""

    entry: Entry
    file: Candidate
    found: bool


def choose(pursuit: Pursuit) -> Choice | None:
    """As `lightvision best` would, had it these files; None where no point ran."""
    budget = pursuit.search.plan.budget
    files = {id(file): (entry, file) for entry, file in _files(pursuit)}
    if not files:
        return None
    candidates = [file for _, file in files.values()]
    best = choosing.best(candidates, budget)
    entry, file = files[id(best or choosing.nearest(candidates, budget))]
    return Choice(entry, file, best is not None)


def conclude(pursuit: Pursuit, choice: Choice | None, confidence: float, command: Sequence[str], here: bool) -> Verdict:
    """`command` begins a sweep over seeds, to which the winner's parameters are added; `here` is where files are."""
    counted = _counted(pursuit)
    if choice is None:
        return Verdict(False, [f"none of the {counted} ran", *_wrong(pursuit)], [])
    point = pursuit.finished or pursuit.point(choice.entry)
    experiment = point if point.fate is Fate.FINISHED else pursuit.point(choice.entry)
    name = f"{experiment.asked.name}: {choice.file.name}"
    sets = pursuit.sets(choice.entry)
    lines = choosing.judge(choice.file, pursuit.search.plan.budget)
    said = [
        f"best of {counted}: {name}"
        if choice.found
        else f"none of the {counted} keeps to the budget; {name} is nearest",
        *(f"  {line.said}" for line in lines),
        *_known(pursuit, experiment, choice.file, confidence),
        *([f"  not timed: {point.reason}"] if point is not experiment else []),
        f"  parameters: {' '.join(sets) or 'as they are in params.yaml'}",
        *_wrong(pursuit),
    ]
    if choice.found:
        options = [word for one in sets for word in ("-S", one)]
        said += [
            f"  it is here by: {revisions.taken(experiment.asked.name, here)}",
            "The best of many on the same val pictures is best by luck too. Other seeds tell how much of it is left:",
            f"  {shlex.join([*command, *options])}",
        ]
    return Verdict(choice.found, said, _rows(pursuit, choice))


def _files(pursuit: Pursuit) -> list[tuple[Entry, Candidate]]:
    return [(entry, file) for entry in pursuit.search.answers if entry.outcome for file in entry.outcome.files]


def _counted(pursuit: Pursuit) -> str:
    """Points of the whole parameters, and those below them."""
    first, last = pursuit.search.rungs[0], pursuit.search.answers
    tried = sum(not entry.is_void for entry in first)
    told = words.plural(tried, "point")
    return told if len(pursuit.search.plan.rungs) == 1 else f"{told}, {len(last)} of them in full"


def _wrong(pursuit: Pursuit) -> list[str]:
    """Each reason once."""
    failed = [entry.outcome.reason for entry in pursuit.search.entries if entry.outcome and entry.outcome.reason]
    void = [entry.outcome.reason for entry in pursuit.search.rungs[0] if entry.is_void and entry.outcome]
    return [
        f"  {words.plural(reasons.count(reason), kind)}: {reason}"
        for kind, reasons in (("failed point", failed), ("refused combination", void))
        for reason in dict.fromkeys(reasons)
    ]


def _known(pursuit: Pursuit, point: Point, file: Candidate, confidence: float) -> list[str]:
    prepared, benchmarked = pursuit.told(point, "prepare"), pursuit.told(point, BENCHMARK)
    count = prepared["pictures"]["val"] if prepared else None
    told = f"  accuracy on val {words.percent(file.accuracy)}"
    if count:
        interval = statistics.wilson(round(file.accuracy * count), count, confidence)
        told += f" {words.interval(*interval)}, {words.level(confidence)} interval of {words.plural(count, 'picture')}"
    said = [told, f"  {words.whole(file.bytes)} bytes"]
    if benchmarked and file.name in benchmarked["files"]:
        time = benchmarked["files"][file.name]["one_thread"]
        noisy = ", a noisy measurement" if time["noisy"] else ""
        between = f"[{words.milliseconds(time['low'])}, {words.milliseconds(time['high'])}]"
        said.append(f"  {words.milliseconds(time['median'])} ms {between} a picture at one thread{noisy}")
    return said


def _rows(pursuit: Pursuit, choice: Choice) -> list[dict[str, str]]:
    budget = pursuit.search.plan.budget
    timed = bool(TIMED & choosing.limited(budget).keys())
    entries = {id(file): entry for entry, file in _files(pursuit)}
    shown = front([file for _, file in _files(pursuit)], timed)
    if all(file is not choice.file for file in shown):
        shown = sorted([*shown, choice.file], key=lambda file: file.bytes)
    return [_row(pursuit, entries[id(file)], file, timed, file is choice.file) for file in shown]


def _row(pursuit: Pursuit, entry: Entry, file: Candidate, timed: bool, chosen: bool) -> dict[str, Any]:
    keeps = choosing.passes(file, pursuit.search.plan.budget)
    return {
        "experiment": pursuit.point(entry).asked.name,
        "file": file.name,
        "bytes": words.whole(file.bytes),
        "on val": words.percent(file.accuracy),
        "drop": f"{file.drop * 100:.2f}",
        **({"milliseconds": words.milliseconds(file.time)} if timed else {}),
        "budget": f"{'keeps' if keeps else 'misses'}{', chosen' if chosen else ''}",
        MADE_WITH: " ".join(pursuit.search.sets(entry)),
    }
