"""A true coordinator over a true repository: what it asks for and believes, and that another may take its place."""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flows.core import coordinator as module
from flows.core import promoting, truth
from flows.core.coordinator import Coordinator, Fate, Rules
from flows.core.hands import Seen, Stand, Ticket
from flows.core.ledger import Ledger
from flows.core.planning import Asked
from flows.core.repository import Repository, Unreachable
from flows.core.work import JOBS, Work
from tests.flows import by_formula
from tests.flows.by_formula import DONE, SILENT, Content, Deed, Formula, Killed, Script, failed, lost

PIPELINE = """
stages:
  prepare:
    cmd: prepare
    meta: {pool: cpu}
    outs: [data]
  teach:
    cmd: teach
    params: [seed]
    deps: [data]
    outs: [models/teacher]
  prune:
    cmd: prune
    params: [prune]
    deps: [data, models/teacher]
    outs: [models/pruned]
  quantize:
    cmd: quantize
    deps: [models/pruned]
    outs: [models/quantized]
  tell:
    cmd: tell
    meta: {pool: cpu}
    deps: [models/quantized]
    metrics: [metrics/tell.json: {cache: false}]
"""
USUAL = Rules()
STAGES = ("prepare", "teach", "prune", "quantize", "tell")


def params(seed: int, sparsity: float) -> str:
    return f"seed: {seed}\nprune:\n  sparsity: {sparsity}\n"


def made(content: Content) -> dict[str, dict[str, float]]:
    return {"tell": {"sum": content["seed"] + content["prune"]["sparsity"]}}


Hear = Callable[[str], None]


@dataclass(frozen=True)
class Overheard(Repository):
    """Before and after each word with the server somebody is told, who may end it."""

    hear: Hear = field(compare=False)

    def fetch(self, *patterns: str) -> None:
        self.hear("fetch")
        super().fetch(*patterns)
        self.hear("fetched")

    def refs(self, *patterns: str) -> dict[str, str]:
        self.hear("refs")
        found = super().refs(*patterns)
        self.hear("refs seen")
        return found

    def create(self, refs: Mapping[str, str]) -> dict[str, bool]:
        self.hear("create")
        fates = super().create(refs)
        self.hear("created")
        return fates


@dataclass(frozen=True)
class OverheardHands:
    """The same, of hands."""

    hands: Formula
    hear: Hear

    def ask(self, work: Work, name: str, pool: str) -> Ticket:
        self.hear("ask")
        ticket = self.hands.ask(work, name, pool)
        self.hear("asked")
        return ticket

    def look(self, ids: Collection[str]) -> Mapping[str, Seen]:
        self.hear("look")
        return self.hands.look(ids)

    def cancel(self, ids: Collection[str]) -> None:
        self.hands.cancel(ids)


def nobody(verb: str) -> None:
    """Nothing happens."""


class World:
    """An origin, hands, and as many coordinators as somebody wants, each with a clone of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        by_formula.build(self.project, PIPELINE, params(0, 0.5))
        self.origin = Repository(str(self.project), self.project / ".git")
        self.hands = self.with_hands(lambda work, attempt, content: DONE)
        self.lines: list[str] = []
        self.is_gone: Callable[[Collection[str]], bool] = lambda stages: False  # data of a result with these stages
        self._clones = 0

    def with_hands(self, script: Script) -> Formula:
        self.hands = Formula(self.origin, made, script)
        return self.hands

    def coordinator(self, hear: Hear = nobody, rules: Rules = USUAL, branch: str = "") -> Coordinator:
        self._clones += 1
        clone = Repository.open(str(self.project), self.folder / f"{self._clones}.git")
        ledger = Ledger(Overheard(clone.url, clone.folder, hear), "main")
        return Coordinator(
            ledger,
            OverheardHands(self.hands, hear),
            promoting.branch(ledger, branch) if branch else promoting.experiments(ledger),
            name="s",
            reach=str(self.project),
            rules=rules,
            tell=self.lines.append,
            lacking=self.lacking,
        )

    def lacking(self, rev: str, stages: Collection[str]) -> Sequence[str]:
        """As `remote.missing_at`: of what dvc.lock does not know, the remote has nothing."""
        noted = truth.blocks(self.origin, rev)
        return [f"models/{stage}" for stage in stages if stage not in noted or self.is_gone(stages)]

    def asked(self, seed: int, sparsity: float, stages: Collection[str] = STAGES) -> Asked:
        text = params(seed, sparsity)
        keys = truth.keys(self.origin, "main", text)
        sets = (f"seed={seed}", f"prune.sparsity={sparsity}")
        return Asked(
            f"s-{seed}-{sparsity}",
            "",
            seed,
            None,
            "",
            sets,
            text,
            {name: keys[name] for name in keys if name in stages},
        )

    def grid(self, seeds: Sequence[int] = (1, 2), sparsities: Sequence[float] = (0.1, 0.2)) -> list[Asked]:
        return [self.asked(seed, sparsity) for seed in seeds for sparsity in sparsities]

    def sweep(self, asked: Sequence[Asked], script: Script | None = None, rules: Rules = USUAL) -> Coordinator:
        """From the beginning to the end."""
        if script:
            self.with_hands(script)
        return finish(self.coordinator(rules=rules), asked)

    @property
    def experiments(self) -> dict[str, str]:
        return {ref.rpartition("/")[2]: rev for ref, rev in self.origin.refs("refs/exps/*").items()}

    def is_right(self, asked: Sequence[Asked]) -> bool:
        """All points are experiments with parameters, metrics and a dvc.lock of their own, and no stage ran twice."""
        promoted = self.experiments
        assert promoted.keys() == {one.name for one in asked}
        for one in asked:
            rev = promoted[one.name]
            assert (self.origin.read(rev, truth.PARAMS) or b"").decode() == one.params_text
            assert self.origin.parents(rev) == (self.origin.sha("main"),)
            assert truth.proven(self.origin, rev) == one.keys
            told = truth.parameters((self.origin.read(rev, "metrics/tell.json") or b"").decode())
            assert told == made(truth.parameters(one.params_text))["tell"]
        return set(self.hands.executed.values()) == {1}


def finish(found: Coordinator, asked: Sequence[Asked], steps: int = 60) -> Coordinator:
    found.recall()
    found.add(asked)
    for _ in range(steps):
        if not found.step():
            return found
    raise AssertionError(f"still {[(task.stages, task.attempt, task.seen) for task in found.tasks]}")


def on(stage: str, *deeds: Deed, sparsity: float | None = None) -> Script:
    """Attempts at a stage's jobs, or at one point's, in turn; whatever is not told is done."""

    def script(work: Work, attempt: int, content: Content) -> Deed:
        meant = stage in work.stages and sparsity in (None, content["prune"]["sparsity"])
        return deeds[attempt - 1] if meant and attempt <= len(deeds) else DONE

    return script


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is asked at each step, as it is after half a minute."""
    monkeypatch.setattr(module, "LOOK", 0.0)


def fates(found: Coordinator) -> dict[str, tuple[Fate, str]]:
    return {name: (point.fate, point.reason) for name, point in found.points.items()}


def test_what_points_share_runs_once_and_each_becomes_an_experiment(world: World) -> None:
    asked = world.grid()
    found = world.sweep(asked)
    assert world.is_right(asked)
    assert {stage: world.hands.ran.count(stage) for stage in STAGES} == dict(zip(STAGES, (1, 2, 4, 4, 4), strict=True))
    assert {point.rev for point in found.points.values()} == set(world.experiments.values())
    assert (found.done, len(found.tasks)) == (11, 11)
    assert not found.makers
    again = world.sweep(asked)
    assert not again.tasks
    assert {point.fate for point in again.points.values()} == {Fate.FINISHED}
    world.sweep(more := world.grid((1, 2), (0.1, 0.2, 0.3)))
    assert world.is_right(more)


@pytest.mark.slow
def test_a_lost_job_is_asked_for_again_until_it_was_lost_too_often(world: World) -> None:
    asked = world.grid((1,))
    losses = [lost("its host went away"), lost("no space left"), lost()]
    found = world.sweep(asked, on("prune", *losses, sparsity=0.1))
    assert world.is_right(asked)
    assert [line.partition(": ")[2] for line in world.lines if "lost" in line] == [
        "prune to quantize: lost (its host went away), asked for again",
        "prune to quantize: lost (no space left), asked for again",
        "prune to quantize: lost (without a word), asked for again",
    ]
    found = world.sweep(other := world.grid((2,)), on("prune", *losses, sparsity=0.1), Rules(attempts=2))
    bad, good = (one.name for one in other)
    assert fates(found) == {bad: (Fate.FAILED, "lost 2 times, last: no space left"), good: (Fate.FINISHED, "")}
    assert bad not in world.experiments


def test_a_failed_stage_fails_the_points_that_need_it_and_no_others(world: World) -> None:
    asked = world.grid((1, 2), (0.1, 0.2))
    script = on("teach", failed("the loss is no number"))
    found = world.sweep(asked, lambda work, attempt, content: script(work, attempt + content["seed"] - 1, content))
    wrong, right = (Fate.FAILED, "the loss is no number"), (Fate.FINISHED, "")
    assert fates(found) == {one.name: wrong if one.seed == 1 else right for one in asked}
    assert [name for name in world.hands.asked if world.hands.asked[name] is not DONE] == [
        f"{task.job.key}/1"
        for task in found.tasks
        if task.job.points[0] == asked[0].name and "teach" in task.job.stages
    ]
    assert world.experiments.keys() == {one.name for one in asked if one.seed == 2}
    assert world.hands.ran.count("teach") == 1
    late, early = world.asked(1, 0.3), world.asked(1, 0.4, ("prepare",))
    found.add([late, early])
    assert not found.step()
    assert fates(found)[late.name] == wrong
    assert fates(found)[early.name] == right
    world.sweep(asked)
    assert world.experiments.keys() == {one.name for one in [*asked, early]}


@pytest.mark.parametrize("ending", [lost("gone", 2), failed("nothing to cut", 2)])
def test_what_a_broken_job_has_finished_stays(world: World, ending: Deed) -> None:
    asked = world.grid((1,), (0.1,))
    found = world.sweep(asked, on("quantize", ending))
    assert set(world.hands.executed.values()) == {1}
    if ending.seen and ending.seen.stand is Stand.LOST:
        assert [work.stages for work in world.hands.works if "quantize" in work.stages][-1] == ("quantize",)
        assert world.is_right(asked)
    else:
        assert fates(found) == {asked[0].name: (Fate.FAILED, "nothing to cut")}
        assert world.hands.ran == ["prepare", "teach", "prune"]
        world.sweep(asked)
        assert world.is_right(asked)


def test_two_who_take_turns_share_the_work_and_its_names(world: World) -> None:
    """One of them does all that is left while the other is about to push or to ask."""
    asked = world.grid((1,))
    first = world.coordinator()
    words: list[str] = []

    def hear(verb: str) -> None:
        words.append(verb)
        if verb == "ask" and words.count("ask") == 3:
            while first.step():
                pass

    second = world.coordinator(hear)
    for each in (first, second):
        each.recall()
        each.add(asked)
    for _ in range(20):
        if not (first.step() | second.step()):
            break
    assert world.is_right(asked)
    for each in (first, second):
        assert {name: point.rev for name, point in each.points.items()} == world.experiments


class Mortal:
    """So many words, and it is no more."""

    def __init__(self, life: int) -> None:
        self.life = life

    def __call__(self, verb: str) -> None:
        self.life -= 1
        if self.life < 0:
            raise Killed


@pytest.mark.parametrize("life", [12, pytest.param(15, marks=pytest.mark.slow)])
def test_one_killed_again_and_again_comes_to_the_end(world: World, life: int) -> None:
    """And nothing that was finished runs again."""
    asked = world.grid((1,), (0.1, 0.2))
    deaths = 0
    while deaths < 30:
        try:
            finish(world.coordinator(Mortal(life)), asked)
            break
        except Killed:
            deaths += 1
    assert 1 < deaths < 30
    assert world.is_right(asked)


@pytest.mark.slow
def test_one_killed_anywhere_is_replaced(tmp_path: Path) -> None:
    script = on("quantize", lost("gone", 2), sparsity=0.1)
    life, ended = 0, False
    while not ended:
        world = World(tmp_path / str(life))
        world.with_hands(script)
        asked = world.grid((1,), (0.1, 0.2))
        try:
            finish(world.coordinator(Mortal(life)), asked)
            ended = True
        except Killed:
            finish(world.coordinator(), asked)
            ended = False
        assert world.is_right(asked), life
        life += 1
    assert life > 30


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_server_that_comes_and_goes_costs_patience_only(world: World, seed: int) -> None:
    asked, chance, silences = world.grid((1,)), random.Random(seed), list[str]()  # noqa: S311

    def hear(verb: str) -> None:
        if found.points and chance.random() < 0.15:
            silences.append(verb)
            raise Unreachable("nobody answers")

    found = world.coordinator(hear)
    finish(found, asked, steps=200)
    assert world.is_right(asked)
    assert len(world.hands.asked) == len(found.tasks)
    assert len(silences) > 3
    assert world.lines.count("nobody answers; trying again") == len(silences)


def test_a_silent_job_is_done_when_git_has_its_result_and_takes_nobodys_place(world: World) -> None:
    asked = world.grid((1,))
    found = world.sweep(asked, on("teach", SILENT), Rules(ahead=1))
    assert world.is_right(asked)
    assert {task.attempt for task in found.tasks} == {1}


def test_no_more_jobs_are_at_work_than_may_be(world: World) -> None:
    finish(world.coordinator(), [world.asked(1, 0.1, ("prepare",))])
    world.with_hands(lambda work, attempt, content: Deed(Seen(Stand.RUNNING), finished=0))
    found = world.coordinator(rules=Rules(ahead=3))
    found.recall()
    found.add(world.grid((1, 2, 3, 4, 5), (0.1,)))
    for _ in range(3):
        assert found.step()
        assert len(world.hands.asked) == 3
    found.cancel()
    assert world.hands.cancelled == [*world.hands.asked]


@pytest.mark.slow
def test_an_orphans_late_result_changes_nothing(world: World) -> None:
    """The first attempt's host was cut off, and comes back when the second is done."""
    asked = world.grid((1,), (0.1,))
    orphan = Deed(Seen(Stand.LOST, "cut off"), late=3, salt="its own GPU")
    found = world.sweep(asked, on("quantize", orphan))
    late = [ref for ref in world.origin.refs(f"{JOBS}/*") if ref.endswith("/1")]
    assert len(late) == 3
    promoted = world.experiments
    for each in (found, world.sweep(asked)):
        each.step()
        assert world.experiments == promoted
        assert each.points[asked[0].name].rev == promoted[asked[0].name]
    assert world.hands.ran.count("quantize") == 2


@pytest.mark.slow
def test_what_lies_corrupt_in_the_remote_is_made_anew(world: World) -> None:
    """By the same job under the next number; what comes of it stands."""
    asked = world.grid((1,))
    script = on("prune", lost("corrupt models/teacher"), sparsity=0.1)
    healed = Deed(salt="anew")

    def both(work: Work, attempt: int, content: Content) -> Deed:
        return healed if "teach" in work.stages and attempt == 2 else script(work, attempt, content)

    world.sweep(asked, both)
    assert world.hands.ran.count("teach") == 2
    assert world.hands.ran.count("prepare") == 1
    made_first, made_last = (
        truth.entries(world.origin, rev)["teach"]["outs"][0]["md5"]
        for ref, rev in sorted(world.origin.refs(f"{JOBS}/*").items(), key=lambda item: item[0][-1])
        if "teach" in truth.proven(world.origin, rev) and "prune" not in truth.proven(world.origin, rev)
    )
    rev = world.experiments[asked[0].name]
    assert truth.proven(world.origin, rev) == asked[0].keys
    assert truth.entries(world.origin, rev)["teach"]["outs"][0]["md5"] == made_last != made_first


@pytest.mark.slow
@pytest.mark.parametrize("path", ["", "raw pictures", "models/of nobody"])
def test_corrupt_inputs_that_no_stage_makes_are_only_tried_again(world: World, path: str) -> None:
    asked = world.grid((1,), (0.1,))
    world.sweep(asked, on("prune", lost(f"corrupt {path}")))
    assert world.is_right(asked)


@pytest.mark.slow
def test_an_older_runs_attempts_are_not_mistaken_for_ours(world: World) -> None:
    asked = world.grid((1,), (0.1,))
    script = on("teach", failed("no memory"), failed("no memory"))
    for ran in range(3):
        found = world.sweep(asked, None if ran else script)
        assert (found.points[asked[0].name].fate is Fate.FINISHED) == (ran == 2)
    assert world.is_right(asked)
    assert {name.rpartition("/")[2] for name in world.hands.asked} == {"1", "2", "3"}


def test_what_failed_points_have_left_is_recalled_by_whoever_asks_for_other_jobs(world: World) -> None:
    """Alone, a point would train its teacher in one job with what follows."""
    world.sweep(world.grid((1,)), lambda work, attempt, content: failed("full", 0) if "prune" in work.stages else DONE)
    assert not world.experiments
    alone = [world.asked(1, 0.1)]
    world.sweep(alone, lambda work, attempt, content: DONE)
    assert world.hands.ran == ["prune", "quantize", "tell"]
    assert world.is_right(alone)


def test_results_that_do_not_count_are_in_nobodys_way(world: World) -> None:
    """Prefect forgets old runs, and would let their numbers be used again, though their refs are taken."""
    asked = world.grid((1,), (0.1,))
    found = world.coordinator()
    found.add(asked)
    [key] = [task.job.key for task in found.tasks if "teach" in task.job.stages]
    world.origin.create({f"{JOBS}/{key}/3": world.origin.sha("main")})
    finish(found, asked)
    assert world.is_right(asked)
    assert f"{key}/4" in world.hands.asked
    assert f"{key}/1" not in world.hands.asked


def test_strange_refs_among_results_are_told_and_ignored(world: World) -> None:
    """An unrelated commit, one that DVC could not read, a file, a name that is no number."""
    asked = world.grid((1,), (0.1,))
    world.sweep([world.asked(1, 0.9, ("prepare",))])
    found = world.coordinator()
    found.recall()
    found.add(asked)
    [key] = [task.job.key for task in found.tasks if "teach" in task.job.stages]
    odd = world.origin.commit("main", ["main"], {"dvc.yaml": b"stages: ["}, "Odd\n")
    blob = world.origin.listing("main", "params.yaml")["params.yaml"]
    strays = {"7": world.origin.sha("main"), "8": odd, "9": blob, "mine": odd}
    assert all(world.origin.create({f"{JOBS}/{key}/{name}": sha for name, sha in strays.items()}).values())
    assert all(world.origin.create({f"{JOBS}/alone": odd, f"{JOBS}/deep/er/still/1": odd}).values())
    found.step()
    assert sum("does not count" in line for line in world.lines) == 4
    finish(found, asked)
    assert {point.fate for point in found.points.values()} == {Fate.FINISHED}
    assert set(world.hands.executed.values()) == {1}


def test_a_result_whose_data_the_remote_lacks_does_not_count(world: World) -> None:
    """The same commit counts as soon as its data is there, which comes with the next attempt."""
    asked = world.grid((1,), (0.1,))
    world.is_gone = lambda stages: "prune" in stages and not any(name.endswith("/2") for name in world.hands.asked)
    world.sweep(asked)
    assert any("models/teach is not in DVC's remote, so its result does not count" in line for line in world.lines)
    assert [world.hands.ran.count(stage) for stage in STAGES] == [1, 2, 2, 2, 1]
    assert not world.is_right(asked)
