"""A search under a budget: what it finds, what it never does, and that git alone remembers it.

Where there is a repository, it is a true one with a true coordinator; only the work is done by formula.
"""

import contextlib
import json
import math
import re
import statistics as means
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from flows.core import promoting, space, truth, verdict
from flows.core.coordinator import Coordinator
from flows.core.ledger import Ledger
from flows.core.planning import Asked
from flows.core.pursuit import Pursuit
from flows.core.repository import Repository
from flows.core.searching import Entry, Outcome, Plan, Search, front
from flows.core.space import Coordinates, Dimension, Space
from flows.core.verdict import Verdict
from flows.core.work import Wish, Work
from lightvision import __main__ as command
from lightvision import experiments, points
from stages.core import choosing, params
from stages.core.choosing import Candidate
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.running.sources import ROOT
from tests import made_project
from tests.flows import by_formula, small
from tests.flows.by_formula import Deed, Formula, Killed

BITS = (8, 6, 4, 3, 2)
SPACE = Space(
    about="made up",
    dimensions=[
        Dimension(set="prune.sparsity", low=0.0, high=0.8, step=0.05),
        Dimension(set="quantize.method.weights", choices=list(BITS)),
        Dimension(set="distill.student.blocks", low=2, high=12),
        Dimension(set="quantize.training.optimizer.rate", low=1e-4, high=1e-2, log=True),
    ],
)
DEFAULTS = {
    "prune.sparsity": 0.5,
    "quantize.method.weights": 0,
    "distill.student.blocks": 6,
    "quantize.training.optimizer.rate": 1e-3,
}
DROP = params.limits({"drop": 0.03}, "a test")
BOTH = params.limits({"megabytes": 0.1, "drop": 0.05}, "a test")


def formula(at: Coordinates) -> Outcome:
    """Smaller is worse, each dimension in its own way, and the rate has one best value."""
    sparsity, blocks, rate = (
        at[name] for name in ("prune.sparsity", "distill.student.blocks", SPACE.dimensions[3].set)
    )
    bits = BITS[at["quantize.method.weights"]]
    lost = 0.2 / blocks**1.5 + 0.4 * max(0, sparsity - 0.5) ** 2 + 0.0015 * (8 - bits) ** 1.5
    lost += 0.01 * abs(math.log10(rate) + 3)
    return outcome(int(blocks * 100_000 * (1 - sparsity) * bits / 8), 0.99 - lost)


def outcome(size: int, accuracy: float) -> Outcome:
    teacher = Candidate("teacher", 10_000_000, 0, 0.0, None, 0.99, 0.0)
    return Outcome((teacher, Candidate("quantized", size, 0, 0.0, None, accuracy, 0.99 - accuracy)))


def carry_out(search: Search, work: Callable[[Coordinates], Outcome], shuffle: int | None = None) -> list[Entry]:
    """Whoever is under way may finish first, as `shuffle` says."""
    order = np.random.default_rng(shuffle)
    waiting: list[Entry] = []
    while not search.is_over:
        waiting += search.ask()
        if waiting:
            chosen = waiting.pop(0 if shuffle is None else order.integers(len(waiting)))
            chosen.outcome = work(chosen.coordinates or DEFAULTS)
    return search.entries


def smallest(found: Sequence[Outcome], budget: params.Budget) -> float:
    chosen = choosing.best([one.files[-1] for one in found if one.files], budget)
    return chosen.bytes if chosen else math.inf


# --------------------------------------------------------------------------------------------------- where it looks


@pytest.mark.slow
@pytest.mark.parametrize("budget", [DROP, BOTH])
def test_smaller_files_than_chance_finds(budget: params.Budget) -> None:
    """Half of 24 searches do better than half of as many draws."""
    searched, drawn = [], []
    for seed in range(24):
        entries = carry_out(Search(Plan(SPACE, budget, 48, 4, seed), DEFAULTS), formula)
        searched.append(smallest([entry.outcome for entry in entries if entry.outcome], budget))
        chance = np.random.default_rng(seed)
        ats = [{one.set: one.at(chance.random()) for one in SPACE.dimensions} for _ in entries]
        drawn.append(smallest([formula(at) for at in ats], budget))
    assert means.median(searched) < 0.95 * means.median(drawn)


def test_whoever_finishes_first_the_search_is_the_same() -> None:
    ways = [carry_out(Search(Plan(SPACE, DROP, 20, 4, 3), DEFAULTS), formula, shuffle) for shuffle in (None, 1, 2)]
    assert ways[0][-1].coordinates
    assert [entry.coordinates for entry in ways[0]] == [entry.coordinates for entry in ways[1]]
    assert [entry.coordinates for entry in ways[0]] == [entry.coordinates for entry in ways[2]]
    other = carry_out(Search(Plan(SPACE, DROP, 20, 4, 4), DEFAULTS), formula)
    assert [entry.coordinates for entry in ways[0]] != [entry.coordinates for entry in other]


def test_what_points_come_to_changes_what_is_tried() -> None:
    one = carry_out(Search(Plan(SPACE, DROP, 20, 4, 3), DEFAULTS), formula)
    other = carry_out(
        Search(Plan(SPACE, DROP, 20, 4, 3), DEFAULTS), lambda at: outcome(1000 * at[SPACE.dimensions[2].set], 0.99)
    )
    known = [a.coordinates == b.coordinates for a, b in zip(one, other, strict=True)]
    assert known.index(False) > 5
    assert sum(known) < 12


def test_never_more_at_once_than_asked() -> None:
    search = Search(Plan(SPACE, DROP, 12, 3, 0), DEFAULTS)
    first = search.ask()
    assert len(first) == 3
    first[1].outcome = first[2].outcome = formula(DEFAULTS)
    assert search.ask() == []
    first[0].outcome = formula(DEFAULTS)
    assert len(search.ask()) == 3


def test_the_defaults_come_first_then_each_dimension_is_covered() -> None:
    search = Search(Plan(SPACE, DROP, 40, 11, 0), DEFAULTS)
    first, *rest = search.ask()
    assert search.sets(first) == ()
    for dimension in SPACE.dimensions:
        places = [(entry.coordinates or {})[dimension.set] for entry in rest]
        assert len(set(places)) >= min(dimension.count or 10, 5)
    rates = [math.log10((entry.coordinates or {})[SPACE.dimensions[3].set]) for entry in rest]
    assert len({int((rate + 4) / 2 * 10) for rate in rates}) == 10  # one in each tenth


def test_nothing_is_tried_twice_and_a_small_space_ends() -> None:
    small = Space(about="x", dimensions=[Dimension(set="a", choices=[1, 2, 3]), Dimension(set="b", low=0, high=3)])
    entries = carry_out(Search(Plan(small, DROP, 99, 2, 0), {"a": 1, "b": 2}), lambda at: outcome(1000 + at["b"], 0.9))
    assert len({tuple((entry.coordinates or {}).values()) for entry in entries}) == len(entries) == 12


def test_points_that_fail_are_counted_and_the_rest_goes_on() -> None:
    def work(at: Coordinates) -> Outcome:
        return Outcome(reason="no") if at["quantize.method.weights"] == 4 else formula(at)

    search = Search(Plan(SPACE, DROP, 30, 3, 1), DEFAULTS)
    entries = carry_out(search, work)
    failed = [entry for entry in entries if entry.outcome and entry.outcome.reason]
    assert len(entries) == 30
    assert 0 < len(failed) < 10
    assert len(search.answers) == 30 - len(failed)
    search = Search(Plan(SPACE, DROP, 5, 2, 1), DEFAULTS)
    carry_out(search, lambda at: Outcome(reason="no"))
    assert search.answers == []


def test_halving_gives_the_best_third_more_and_answers_only_with_the_whole() -> None:
    rungs = [(f"e={epochs}",) for epochs in (2, 6, 18)]
    search = Search(Plan(SPACE, BOTH, 27, 4, 0, rungs), DEFAULTS)
    carry_out(search, formula)
    assert [len(rung) for rung in search.rungs] == [27, 9, 3]
    misses = [
        sorted((max(0, file.bytes / 1e5 - 1) + max(0, file.drop / 0.05 - 1), file.bytes) for file in files)
        for files in ([entry.outcome.files[-1] for entry in rung if entry.outcome] for rung in search.rungs)
    ]
    assert [round(one[0], 9) for one in misses[1]] == [round(one[0], 9) for one in misses[0][:9]]
    assert [one[1] for one in misses[2]] == [one[1] for one in misses[0][:3]]
    assert all(search.sets(entry)[-1] == "e=18" for entry in search.answers)
    assert len(search.answers) == 3


def test_a_halving_whose_first_rung_fails_ends() -> None:
    search = Search(Plan(SPACE, BOTH, 4, 2, 0, [("e=1",), ("e=2",)]), DEFAULTS)
    carry_out(search, lambda at: Outcome(reason="no"))
    assert search.answers == []


def test_the_front_by_definition() -> None:
    chance = np.random.default_rng(0)
    every = [
        Candidate(str(n), int(chance.integers(9)), 0, int(chance.integers(9)), None, int(chance.integers(9)) / 10, 0)
        for n in range(60)
    ]

    def beats(a: Candidate, b: Candidate) -> bool:
        mine, other = ((-one.bytes, one.accuracy, -one.time) for one in (a, b))
        return all(x >= y for x, y in zip(mine, other, strict=True)) and mine != other

    wanted = {(b.bytes, b.accuracy, b.milliseconds) for b in every if not any(beats(a, b) for a in every)}
    found = front(every, by_time=True)
    assert {(one.bytes, one.accuracy, one.milliseconds) for one in found} == wanted
    assert len(found) == len(wanted) > 3
    assert len(front(every, by_time=False)) < len(found)


# -------------------------------------------------------------------------------------------------------- the space


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "{set: prune.sparsity, low: 0.0, hihg: 0.8}",
            "dimensions.0.hihg is not known here; allowed: set, choices, low",
        ),
        ("{set: prune.sparsity, low: 0.0}", "needs choices, or low and high"),
        ("{set: prune.sparsity, low: 0.8, high: 0.0}", "low is below high"),
        ("{set: prune.sparsity, low: 0.0, high: 0.8, step: 0.3}", "is not whole steps of 0.3"),
        ("{set: prune.sparsity, low: 0.0, high: 0.8, log: true}", "a log range begins above 0"),
        ("{set: prune.sparsity, choices: [0.5]}", "dimensions.0.choices: List should have at least 2 items"),
        ("{set: prune.sparsity, choices: [0.5, 0.5]}", "has one choice twice"),
        ("{set: prune.sparsity, choices: [0.5, 0.6], low: 0}", "so it has no low, high, step or log"),
        ("{set: seed, low: 0, high: 9}", "decides how files are judged"),
        ("{set: prepare.val_share, low: 0.1, high: 0.5}", "decides how files are judged"),
        ("{set: export.min_agreement, low: 0.1, high: 0.5}", "decides how files are judged"),
        ("{set: prune, choices: [a, b]}, {set: prune.sparsity, low: 0, high: 1}", "are in each other's way"),
    ],
)
def test_a_space_that_cannot_be_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(f"about: x\ndimensions: [{text}]\n")
    with pytest.raises(Refusal, match=re.escape(told)):
        space.read(tmp_path / "space.yaml")


def test_the_projects_own_space_fits_its_own_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    own = space.read(Path("studies/search.yaml"))
    own.check(YAML(typ="safe").load(Path("params.yaml")))
    for sets in own.samples():
        points.changed(sets)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distill.student", {"name": "residual_cnn", "blocks": 4, "hidden_layers": 1}),
        ("prune.recovery", {"name": "cross_entropy", "smoothing": 0.0}),
        ("prune.lasso", {"epochs": 4, "strength": 0.1}),
        ("quantize.recovery", None),
        ("quantize.method.weights", "ternary"),
        ("quantize.method.weights", {"choices": [8, 4], "budget": {"name": "bytes", "at_most": 9000}}),
        ("prune.scan", [0.1, 0.2]),
        ("prune.controls", False),
        ("report.title", "it's a {search}"),
        ("distill.training.optimizer.rate", 1e-05),
    ],
)
def test_a_choice_is_what_dvc_puts_there(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found: Any = points.changed(Dimension(set=name, choices=[value, "another"]).sets(value))
    for part in name.split("."):
        found = found[part]
    assert found == value


def test_where_defaults_lie() -> None:
    at = SPACE.dimensions[0].coordinate
    assert at(0.15000000000000002) == 0.15
    assert [at(value) for value in (0.17, 0.85, -0.05, "half", True, None)] == [None] * 6
    assert SPACE.dimensions[2].coordinate(6) == 6
    assert Dimension(set="a", choices=[{"b": 1}, 2]).coordinate({"b": 1}) == 0
    assert Dimension(set="a", low=2, high=32, step=10).distribution.single() is False
    assert sorted({Dimension(set="a", low=2, high=32, step=10).at(share / 100) for share in range(100)}) == [
        2,
        12,
        22,
        32,
    ]


def test_rungs() -> None:
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    assert space.rungs("prune.training.epochs=2,6", SPACE, values) == [
        ("prune.training.epochs=2",),
        ("prune.training.epochs=6",),
    ]
    for text, told in (
        ("prune.training.epochs=6", "numbers that rise"),
        ("prune.training.epochs=6,2", "numbers that rise"),
        ("prune.training.epochs=few,many", "numbers that rise"),
        ("prune.training.epoch=2,6", "allowed here: epochs"),
        ("prune.sparsity=0.1,0.2", "is a dimension of the space"),
    ):
        with pytest.raises(Refusal, match=told):
            space.rungs(text, SPACE, values)


# ----------------------------------------------------------------------------------- with git, and a true coordinator

PIPELINE = """
stages:
  train_teacher:
    cmd: teach
    params: [train_teacher, seed]
    outs: [models/teacher]
  prune:
    cmd: prune
    params: [prune, seed]
    deps: [models/teacher]
    outs: [models/pruned]
  export:
    cmd: export
    meta: {pool: cpu}
    params: [quantize, seed]
    deps: [models/pruned]
    outs: [models/shipped]
    metrics: [metrics/export.json: {cache: false}]
  benchmark:
    cmd: benchmark
    meta: {pool: cpu}
    params: [benchmark]
    deps: [models/shipped]
    metrics: [metrics/benchmark.json: {cache: false}]
"""
GRID = Space(
    about="made up",
    dimensions=[
        Dimension(set="prune.sparsity", low=0.0, high=0.8, step=0.1),
        Dimension(set="quantize.method.weights", choices=[8, 4, 2]),
    ],
)


def made(content: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by stage: half a megabyte at 8 bits, less if more is cut; less accurate beyond 0.6, or at 2 bits."""
    sparsity, bits = content["prune"]["sparsity"], content["quantize"]["method"]["weights"]
    recovered = 0.002 * min(content["prune"]["training"]["epochs"], 6)
    accuracy = round(0.97 + recovered - max(0, sparsity - 0.6) / 5 - (0.05 if bits == 2 else 0), 4)
    sizes = {"teacher": 4_000_000, "quantized": round(500_000 * (1 - sparsity) * bits / 8)}
    right = {"teacher": 0.985, "quantized": accuracy}
    return {
        "export": {name: {"bytes": sizes[name], "accuracy": right[name]} for name in sizes},
        "benchmark": {
            "machine": made_project.MACHINE,
            "files": {
                name: made_project.measured(size, round((1 - right[name]) * made_project.PICTURES), 10.0)
                for name, size in sizes.items()
            },
        },
    }


NOTHING_LEFT = by_formula.failed("there is nothing left to cut")


class Place:
    """A project with an origin of its own, and searches that begin there anew each time, as after a crash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        by_formula.build(folder, PIPELINE, (ROOT / "params.yaml").read_text())
        self.repository = Repository.open(str(folder), folder.parent / "mirror.git")
        self.values = truth.parameters((folder / "params.yaml").read_text())

    def expand(self, wishes: Sequence[Wish], targets: Sequence[str]) -> list[Asked]:
        """As `planning.expand`, without a process of its own."""
        with contextlib.chdir(self.folder):
            needed = points.needed(targets)
            found = [points.point("", wish.seed, None, wish.sets, needed) for wish in wishes]
            texts = [points.text(one.sets) for one in found]
        names = [stage.name for stage in needed]
        every = [truth.keys(self.repository, "main", text) for text in texts]
        return [
            Asked(
                f"s-{one.digest[:8]}",
                "",
                one.seed,
                None,
                one.digest,
                one.sets,
                text,
                {name: keys[name] for name in names},
            )
            for one, text, keys in zip(found, texts, every, strict=True)
        ]

    def pursue(self, plan: Plan, hands: Formula) -> tuple[Pursuit, Verdict]:
        ledger = Ledger(self.repository, "main")
        coordinator = Coordinator(
            ledger, hands, promoting.experiments(ledger), name="s", reach="", tell=lambda line: None
        )
        coordinator.recall()
        chase = Pursuit(Search(plan, plan.space.coordinates(self.values)), coordinator, self.expand, (), 0)
        while chase.step():
            pass
        choice = verdict.choose(chase)
        while choice and choice.found and chase.finish(choice.entry):
            pass
        return chase, verdict.conclude(chase, choice, 0.95, ["lightvision", "sweep"], here=False)

    def hands(self, fails: Callable[[Mapping[str, Any]], bool] = lambda content: False, life: int = 1000) -> Formula:
        """They fail where they are told to."""

        def script(work: Work, attempt: int, content: Mapping[str, Any]) -> Deed:
            return NOTHING_LEFT if "prune" in work.stages and fails(content) else by_formula.DONE

        return Formula(self.repository, made, script, life)

    @property
    def experiments(self) -> list[str]:
        return sorted(ref.rpartition("/")[2] for ref in self.repository.refs("refs/exps/*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "project")


def grid(count: int, rungs: Sequence[tuple[str, ...]] = ((),), **limits: float) -> Plan:
    return Plan(GRID, params.limits(limits, "a test"), count, 3, 0, rungs)


def told(found: Verdict) -> str:
    return "\n".join(found.said)


@pytest.mark.slow
def test_the_planted_optimum_and_what_all_points_share_runs_once(place: Place) -> None:
    """The smallest that loses at most a point is of 4 bits, with six tenths cut; all of 27 points are tried."""
    hands = place.hands()
    _, found = place.pursue(grid(99, drop=0.01), hands)
    assert found.found
    assert "prune.sparsity=0.6 quantize.method.weights=4" in told(found)
    assert hands.ran.count("train_teacher") == 1
    assert hands.ran.count("prune") == 9
    assert hands.ran.count("export") == 27
    assert hands.ran.count("benchmark") == 1
    assert "100,000 bytes" in told(found)
    assert "it is here by: dvc exp pull origin s-" in told(found)
    assert "drop on val against the teacher: at most 1 point, found 0.3 points: passes" in told(found)
    assert [row["budget"] for row in found.rows].count("keeps, chosen") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits", [{"drop": 0.02}, {"megabytes": 0.2, "milliseconds": 0.4}, {"milliseconds": 0.5, "drop": 0.004}]
)
def test_best_agrees(
    limits: dict[str, float], place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Best sees only what was timed, so that all points are once it is asked."""
    hands = place.hands()
    _, found = place.pursue(Plan(GRID, params.limits(limits, "a test"), 14, 3, 0), hands)
    assert hands.ran.count("benchmark") == (14 if "milliseconds" in limits else 1)
    place.pursue(Plan(GRID, params.limits({"milliseconds": 1e6} | limits, "a test"), 14, 3, 0), hands)
    assert hands.ran.count("benchmark") >= 14
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr(experiments, "locked", experiments.locked.__wrapped__)
    words = {"megabytes": "--max-mb", "milliseconds": "--max-ms", "drop": "--max-drop"}
    asked = [
        word for name, limit in limits.items() for word in (words[name], str(limit * (100 if name == "drop" else 1)))
    ]
    monkeypatch.setattr(sys, "argv", ["lightvision", "best", "--no-mlflow", *asked])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("best: ")]
    assert found.said[0].rpartition("points: ")[2] == line.removeprefix("best: ").partition(",")[0]


@pytest.mark.slow
def test_a_search_that_broke_goes_on_where_it_was_and_ends_as_one_that_did_not(place: Place, tmp_path: Path) -> None:
    plan = grid(14, milliseconds=0.5)
    first = place.hands(life=9)
    with pytest.raises(Killed):
        place.pursue(plan, first)
    assert 0 < first.ran.count("benchmark") < 14
    second = place.hands()
    _, found = place.pursue(plan, second)
    assert first.ran.count("train_teacher") + second.ran.count("train_teacher") == 1
    assert 14 <= first.ran.count("benchmark") + second.ran.count("benchmark") < 14 + 3  # some were under way
    third = place.hands()
    assert told(place.pursue(plan, third)[1]) == told(found)
    assert third.ran == []
    unbroken = Place(tmp_path / "other")
    assert told(unbroken.pursue(plan, unbroken.hands())[1]) == told(found)
    assert unbroken.experiments == place.experiments


@pytest.mark.slow
def test_what_another_sweep_has_finished_is_not_run_again(place: Place) -> None:
    place.pursue(grid(6, milliseconds=0.5), place.hands())
    later = place.hands()
    place.pursue(grid(6, megabytes=0.2), later)
    assert later.ran.count("train_teacher") == 0
    assert later.ran.count("export") < 6


def test_none_keeps_the_budget(place: Place) -> None:
    chase, found = place.pursue(grid(8, megabytes=0.001), place.hands())
    assert not found.found
    assert found.said[0].startswith("none of the 8 points keeps to the budget; s-")
    nearest = min(file.bytes for entry in chase.search.answers for file in (entry.outcome or Outcome()).files)
    assert f"{nearest:,} bytes" in told(found)
    assert "lightvision sweep" not in told(found)


@pytest.mark.slow
def test_failures_are_told_once_and_all_of_them_is_a_result_too(place: Place) -> None:
    _, found = place.pursue(grid(4, megabytes=0.3), place.hands(lambda content: True))
    assert found == Verdict(False, ["none of the 4 points ran", "  4 failed points: there is nothing left to cut"], [])
    fails = place.hands(lambda content: content["prune"]["sparsity"] > 0.45)
    chase, found = place.pursue(grid(10, megabytes=0.3), fails)
    failed = sum(bool(entry.outcome and entry.outcome.reason) for entry in chase.search.entries)
    assert found.found
    assert 1 < failed < 10
    assert f"  {failed} failed points: there is nothing left to cut" in found.said


@pytest.mark.slow
def test_combinations_that_params_refuses_cost_nothing(place: Place) -> None:
    """A ranking by a scan, and no scan."""
    both = [
        Dimension(set="prune.ranking", choices=["global", "sensitivity"]),
        Dimension(set="prune.scan", choices=[[0.25, 0.5], []]),
    ]
    plan = Plan(Space(about="x", dimensions=both), params.limits({"megabytes": 0.3}, "a test"), 9, 2, 0)
    chase, found = place.pursue(plan, place.hands())
    refused = [dict(entry.coordinates or {}) for entry in chase.search.rungs[0] if entry.is_void]
    assert refused == [{"prune.ranking": 1, "prune.scan": 1}]
    assert len(chase.search.answers) == 4  # the defaults are outside of the space
    assert "1 refused combination: prune: ranking sensitivity follows a scan" in told(found)


@pytest.mark.slow
def test_halving_in_experiments(place: Place) -> None:
    rungs = [(f"prune.training.epochs={epochs}",) for epochs in (1, 6)]
    hands = place.hands()
    _, found = place.pursue(grid(9, rungs=rungs, megabytes=0.2), hands)
    assert hands.ran.count("export") == 12
    assert "best of 9 points, 3 of them in full: s-" in told(found)
    assert "prune.training.epochs=6" in told(found)


@pytest.mark.slow
def test_times_of_the_baseline_are_not_those_of_a_point(place: Place) -> None:
    """An experiment holds what its commit had, of stages that it did not run."""
    content = made(place.values)["benchmark"]
    files.write_text(place.folder / "metrics/benchmark.json", json.dumps(content))
    small.commit(place.folder)
    place.repository.fetch("refs/heads/*")
    _, found = place.pursue(grid(4, megabytes=0.001), place.hands())
    assert "a picture at one thread" not in told(found)
    _, found = place.pursue(grid(4, megabytes=0.3), place.hands())
    assert "a picture at one thread" in told(found)
