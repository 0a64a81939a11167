"""Points are those of `lightvision sweep`; jobs share all that can be shared, and never wait in a circle."""

import hashlib
import shutil
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.core import planning, truth
from flows.core.planning import Asked, Job
from flows.core.repository import Repository
from lightvision import overriding, points
from stages.core.running import pipeline
from stages.core.running.errors import Refusal
from stages.core.running.pipeline import Stage
from stages.core.running.sources import ROOT
from tests.flows import small


@dataclass(frozen=True)
class Wish:
    row: str = ""
    seed: int = 0
    fold: int | None = None
    sets: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------- points


@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("prune.sparsity=0.4", "seed=3"),
        ("prune.scan=[0.1,0.2]", "seed=1e3"),
        ("~prune.scan",),
        ("+prune.new={a: 1, b: [1,2]}", "+neu=[1,{x: 2}]"),
        ("compute.compile=null", "prune.sparsity=1e-7"),
        ("evaluate.robustness={noise: [0.5]}",),
        ("compute.compile='a: b # c'",),
    ],
)
@pytest.mark.parametrize("anchored", [False, True])
def test_texts_are_those_of_dvc_byte_by_byte(sets: tuple[str, ...], anchored: bool, tmp_path: Path) -> None:
    original = (ROOT / "params.yaml").read_text()
    if anchored:
        added = "# first\nshared: &shared {a: [1, 2]}  # second\nseed: 0\nagain: *shared"
        original = original.replace("seed: 0", added, 1)
    (tmp_path / "params.yaml").write_text(original)
    apply_overrides(tmp_path / "params.yaml", list(sets))
    assert overriding.text(original, sets) == (tmp_path / "params.yaml").read_text()


def test_points_are_those_of_a_sweep_on_one_machine(project: Path, repository: Repository) -> None:
    wishes = [
        Wish("half", 0, None, ("prune.sparsity=0.5",)),
        Wish("more", 1, 2, ("prune.sparsity=0.75", "prepare.folds=5")),
        Wish("same", 0, None, ("benchmark.rounds=3",)),
    ]
    asked = planning.expand(repository, "main", "cut", wishes, ["cut"])
    with chdir(project):
        needed = points.needed(["cut"])
        expected = [points.point(one.row, one.seed, one.fold, one.sets, needed) for one in wishes]
    assert [(one.row, one.seed, one.fold, one.sets, one.digest) for one in asked] == [
        (one.row, one.seed, one.fold, one.sets, one.digest) for one in expected
    ]
    assert [one.name for one in asked] == [f"cut-{one.digest[:8]}" for one in expected]
    assert asked[0].name == asked[2].name != asked[1].name
    assert list(asked[0].keys) == ["draw", "learn", "cut"]
    assert asked[0].keys == {name: key for name, key in truth.keys(repository, "main").items() if name != "tell"}
    assert {name for name in asked[0].keys if asked[0].keys[name] != asked[1].keys[name]} == {"draw", "learn", "cut"}


def test_a_mistake_is_said_as_a_sweep_says_it(project: Path, repository: Repository) -> None:
    for wish, target in (
        (Wish("a", sets=("prune.sparsity=half",)), "cut"),
        (Wish(sets=("prun=1",)), "cut"),
        (Wish(), "ct"),
    ):
        with chdir(project), pytest.raises(Refusal) as expected:
            points.point(wish.row, wish.seed, wish.fold, wish.sets, points.needed([target]))
        with pytest.raises(Refusal) as refused:
            planning.expand(repository, "main", "cut", [wish], [target])
        assert str(refused.value) == str(expected.value)


def test_parameters_are_checked_by_the_commits_own_code(project: Path, repository: Repository) -> None:
    shutil.copytree(ROOT / "stages", project / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    pruning = project / "stages/core/params/pruning.py"
    pruning.write_text(pruning.read_text() + "\nraise ValueError('this is the commit')\n")
    small.commit(project)
    repository.fetch("refs/heads/*")
    with pytest.raises(RuntimeError, match="this is the commit"):
        planning.expand(repository, "main", "cut", [Wish()], ["cut"])


# --------------------------------------------------------------------------------------------------------- jobs


def dag(*stages: tuple[str, str, tuple[str, ...]]) -> dict[str, Stage]:
    """Name, pool, and what it needs."""
    return {
        name: pipeline.stage(name, {"cmd": name, "deps": list(needs), "outs": [name], "meta": {"pool": pool}})
        for name, pool, needs in stages
    }


def ask(name: str, stages: dict[str, Stage], own: dict[str, int]) -> Asked:
    keys: dict[str, str] = {}
    for stage in stages:
        text = repr([stage, own.get(stage, 0), [keys[dep] for dep in sorted(stages[stage].deps)]])
        keys[stage] = hashlib.sha256(text.encode()).hexdigest()
    return Asked(name, "", 0, None, "", (), "", keys)


def test_this_projects_dag_is_three_jobs_for_a_point_and_shares_its_teacher() -> None:
    stages = truth_of_this_project()
    one, other = ask("one", stages, {}), ask("other", stages, {"prune": 1})
    alone = planning.jobs(stages, [one], (), apart=False)
    assert [(job.stages[0], job.stages[-1], job.pool) for job in alone] == [
        ("prepare", "describe", "cpu"),
        ("train_teacher", "evaluate", "gpu"),
        ("export", "report", "cpu"),
    ]
    both = planning.jobs(stages, [one, other], (), apart=False)
    assert [len(job.points) for job in both] == [2, 2, 1, 1, 1, 1]
    assert both[1].stages == ("train_teacher", "advise", "distill")
    done = set(one.keys.values())
    assert planning.jobs(stages, [one, other], done, apart=False) == planning.jobs(stages, [other], done, apart=False)


def truth_of_this_project() -> dict[str, Stage]:
    known = pipeline.read(ROOT / "dvc.yaml")
    above = truth.parents(known)
    return dag(*((name, known[name].pool, tuple(above[name])) for name in above))


@st.composite
def plans(draw: st.DrawFn) -> tuple[dict[str, Stage], list[Asked], set[str], bool]:
    names = [f"s{number}" for number in range(draw(st.integers(1, 7)))]
    stages = dag(
        *(
            (
                name,
                draw(st.sampled_from(["gpu", "cpu"])),
                tuple(draw(st.sets(st.sampled_from(names[:place])))) if place else (),
            )
            for place, name in enumerate(names)
        )
    )
    own = st.dictionaries(st.sampled_from(names), st.integers(0, 2))
    asked = [ask(f"p{number}", stages, draw(own)) for number in range(draw(st.integers(1, 6)))]
    every = sorted({key for one in asked for key in one.keys.values()})
    return stages, asked, draw(st.sets(st.sampled_from(every))), draw(st.booleans())


@given(plans())
@settings(max_examples=100, deadline=None)
def test_every_stage_is_in_one_job_after_those_it_needs(
    plan: tuple[dict[str, Stage], list[Asked], set[str], bool],
) -> None:
    stages, asked, done, apart = plan
    jobs = planning.jobs(stages, asked, done, apart=apart)
    by_name = {one.name: one for one in asked}
    held: dict[str, Job] = {}
    seen: set[str] = set()
    for job in jobs:
        keys = [by_name[job.points[0]].keys[stage] for stage in job.stages]
        assert job.key == planning.name(keys)
        assert not held.keys() & set(keys)
        held |= dict.fromkeys(keys, job)
        assert job.needs <= seen
        seen.add(job.key)
        assert {stages[stage].pool for stage in job.stages} == {job.pool}
        assert not apart or len(job.stages) == 1
        needed: set[str] = set()
        for place, stage in enumerate(job.stages):
            key = by_name[job.points[0]].keys[stage]
            assert list(job.points) == [one.name for one in asked if one.keys[stage] == key]
            above = {by_name[job.points[0]].keys[dep] for dep in stages[stage].deps} - done
            assert not above & set(keys[place:])
            needed |= {held[one].key for one in above} - {job.key}
        assert job.needs == needed
    assert held.keys() == {key for one in asked for key in one.keys.values()} - done
    assert len(seen) == len(jobs)
