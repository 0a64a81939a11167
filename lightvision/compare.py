"""`lightvision compare`: two runs, side by side, and whether they differ on the pictures that both have answered."""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightvision import differences, finding
from lightvision.data import settings
from lightvision.differences import Difference
from lightvision.runs import Run
from stages.core import answers, words
from stages.core.answers import Answers
from stages.core.running import files as written
from stages.core.running.errors import Refusal

NETWORKS, FILES = "data/answers", "data/file_answers"
ABSENT = "-"


@dataclass(frozen=True)
class Comparison:
    """`margin` is a share; `params` are those that differ."""

    first: Run
    second: Run
    test: str
    margin: float
    confidence: float
    params: Mapping[str, tuple[Any, Any]]
    networks: list[Difference]
    alone: list[str]

    @property
    def pair(self) -> tuple[Run, Run]:
        return self.first, self.second

    @property
    def identical(self) -> bool:
        same = not self.params and not self.alone and self.first.metrics == self.second.metrics
        return same and all(one.identical for one in self.networks)


def add(members: Any, action: str) -> None:
    text = (
        "What differs between two runs: parameters, files, and for each network whether one is better on the test "
        "pictures that both answered. RUN is an experiment, a commit, `workspace`, or the id of a run of MLflow."
    )
    parser: argparse.ArgumentParser = members.add_parser(action, description=text, allow_abbrev=False)
    parser.add_argument("first", metavar="RUN")
    parser.add_argument("second", metavar="RUN")
    parser.add_argument("--network", metavar="NAME", help="this one alone; all that both runs have if not given")
    parser.add_argument("--margin", type=float, default=1.0, help="points within which networks are equivalent; 1")
    parser.add_argument("--files", action="store_true", help="the shipped files' answers, not the networks'")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.set_defaults(run=run)


def run(first: str, second: str, network: str | None, margin: float, files: bool, json: Path | None) -> int:
    if not 0 < margin < 100:
        raise Refusal(f"--margin is in points, between 0 and 100, not {margin:g}")
    pair = finding.named(first), finding.named(second)
    found = compare(pair, FILES if files else NETWORKS, network, margin / 100, settings().evaluate.confidence)
    show(found)
    if json:
        written.write_json(json, content(found))
    return 0


def compare(pair: tuple[Run, Run], path: str, network: str | None, margin: float, confidence: float) -> Comparison:
    first, second = (held_by(one, path) for one in pair)
    try:
        answers.comparable(first, second)
    except Refusal as refusal:
        raise Refusal(f"not comparable: {pair[0].name} and {pair[1].name}: {refusal}") from refusal
    both = [name for name in first.probabilities if name in second.probabilities]
    names = both if network is None else [name for name in both if name == network]
    if not names:
        raise Refusal(
            f"not both runs have answers of {network or 'any network'}; both have {', '.join(both) or 'none'}"
        )
    return Comparison(
        *pair,
        test=first.test,
        margin=margin,
        confidence=confidence,
        params=unlike(*pair),
        networks=list(differences.differ(first, second, names, margin, confidence)),
        alone=sorted(set(first.probabilities) ^ set(second.probabilities)),
    )


def held_by(one: Run, path: str) -> Answers:
    with tempfile.TemporaryDirectory() as folder:
        return answers.read(one.fetch(path, Path(folder)))


def unlike(first: Run, second: Run) -> dict[str, tuple[Any, Any]]:
    """Parameters that are not the same, or that one of them lacks in a section that both tell of."""
    told = [{name.partition(".")[0] for name in one.params} for one in (first, second)]
    names = [
        name for name in dict.fromkeys([*first.params, *second.params]) if name.partition(".")[0] in told[0] & told[1]
    ]
    values = {name: (first.params.get(name, ABSENT), second.params.get(name, ABSENT)) for name in names}
    return {name: (one, other) for name, (one, other) in values.items() if one != other}


# --------------------------------------------------------------------------------------------------- what is told


def show(found: Comparison) -> None:
    console = Console()
    if found.params:
        table = Table("", *(one.name for one in found.pair), title="parameters that differ")
        for name, values in found.params.items():
            table.add_row(name, *map(str, values))
        console.print(table)
    else:
        print("no parameter differs")
    for told in measured(found):
        console.print(told, highlight=False)
    pictures, sure = words.plural(found.networks[0].pictures, "test picture"), words.level(found.confidence)
    print(f"{found.second.name} against {found.first.name}, {pictures} that both answered, {sure} intervals:")
    for one in found.networks:
        print(differences.told(one, len(found.networks), found.margin))
    if found.alone:
        print(f"only in one of the runs: {', '.join(found.alone)}")
    if found.identical:
        print(f"identical: {found.first.name} and {found.second.name} have the same parameters, metrics and answers")


def measured(found: Comparison) -> Iterator[Table | str]:
    """Files side by side, as the benchmark of each run found them."""
    lacking = [f"{one.name}: {one.lacks['benchmark']}" for one in found.pair if "benchmark" in one.lacks]
    if lacking:
        yield f"files are not compared: {'; '.join(lacking)}"
        return
    table = Table("file", "run", title="files")
    for column in ("size", "MACs", "latency, one thread", "accuracy on test"):
        table.add_column(column, justify="right")
    sides = [one.metrics["benchmark"]["files"] for one in found.pair]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        for one, side in zip(found.pair, sides, strict=True):
            table.add_row(name, one.name, *(facts(side[name]) if name in side else [ABSENT] * 4))
    yield table
    machines = [one.machine for one in found.pair]
    if machines[0] != machines[1]:
        yield f"latencies are of two machines, and not comparable: {machines[0]}; {machines[1]}"


def facts(file: Mapping[str, Any]) -> list[str]:
    time = file["one_thread"]
    low, median, high = (words.milliseconds(time[name]) for name in ("low", "median", "high"))
    share = f"{words.percent(file['accuracy'])} {words.interval(file['accuracy_low'], file['accuracy_high'])}"
    noisy = ", noisy" if time["noisy"] else ""
    return [words.megabytes(file["bytes"]), words.whole(file["macs"]), f"{median} ms [{low}, {high}]{noisy}", share]


def content(found: Comparison) -> dict[str, Any]:
    return {
        "schema": 1,
        "runs": [one.name for one in found.pair],
        "test": found.test,
        "confidence": found.confidence,
        "margin": found.margin,
        "identical": found.identical,
        "params": found.params,
        "networks": [asdict(one) for one in found.networks],
        "only_in_one": found.alone,
        "metrics": [one.metrics for one in found.pair],
    }
