"""What a coordinator writes is what DVC would have written, had it done all by itself."""

import hashlib
import json
import subprocess
import sys
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.repo.experiments.refs import ExpRefInfo

from flows.core import planning, truth
from flows.core.ledger import Ledger
from flows.core.planning import Asked, Job
from flows.core.repository import Repository
from flows.core.work import STARTS
from lightvision import experiments
from lightvision.overriding import text
from stages.core.running.errors import Refusal
from tests.flows import small

SETS = ("prune.sparsity=0.45",)


def ask(repository: Repository, rev: str = "main", sets: tuple[str, ...] = SETS, name: str = "point") -> Asked:
    changed = text((repository.read(rev, "params.yaml") or b"").decode(), sets)
    return Asked(name, "", 0, None, "", sets, changed, truth.keys(repository, rev, changed))


def plan(ledger: Ledger, *asked: Asked) -> list[Job]:
    return planning.jobs(truth.stages(ledger.repository, ledger.baseline), asked, ledger.done, apart=False)


def knows(repository: Repository, rev: str = "main") -> Ledger:
    ledger = Ledger(repository, rev)
    ledger.learn(ledger.baseline)
    return ledger


def carry_out(repository: Repository, start: str, stages: tuple[str, ...], project: Path) -> str:
    """In the project itself, whose cache has what the others made."""
    small.git(project, "fetch", "-q", str(repository.folder), start)
    small.git(project, "checkout", "-q", start)
    with small.repo(project) as dvc:
        dvc.checkout(force=True, allow_missing=True)  # pyright: ignore
        dvc.reproduce(list(stages), single_item=True)  # pyright: ignore
    rev = small.commit(project)
    small.git(project, "push", "-q", str(repository.folder), f"{rev}:refs/lightvision/jobs/x/{rev}")
    return rev


def test_a_start_is_the_same_from_whoever_makes_it(project: Path, repository: Repository) -> None:
    asked = ask(repository)
    made: list[tuple[str, str]] = []
    for folder in ("mirror.git", "other.git"):
        ledger = knows(Repository.open(str(project), project.parent / folder))
        job = plan(ledger, asked)[0]
        made.append(ledger.start(job, asked))
    assert made[0] == made[1]
    ref, sha = made[0]
    assert ref.startswith(f"{STARTS}/{job.key}/")
    assert (job.stages, repository.parents(sha)) == (("learn", "cut"), (repository.sha("main"),))
    assert (repository.read(sha, "params.yaml") or b"").decode() == asked.params_text
    assert list(truth.blocks(repository, sha)) == ["draw", "tell"]
    assert truth.proven(repository, sha) == {"draw": asked.keys["draw"]}


@pytest.mark.slow
def test_jobs_come_to_the_experiment_that_dvc_makes_alone(project: Path, repository: Repository) -> None:
    """Byte by byte, and DVC shows it, applies it, and has nothing left to do."""
    ledger, asked = knows(repository), ask(repository)
    for job in plan(ledger, asked):
        _, start = ledger.start(job, asked)
        rev = carry_out(repository, start, job.stages, project)
        assert ledger.accept(job, rev) == {asked.keys[stage] for stage in job.stages}
    assert plan(ledger, asked) == []
    rev = ledger.experiment(asked)
    place = str(ExpRefInfo(ledger.baseline, "point"))
    assert repository.create({place: rev}) == {place: True}
    small.git(project, "checkout", "-q", "main")

    alone = [sys.executable, "-m", "dvc", "exp", "run", "-q", "-n", "alone", "-S", SETS[0]]
    subprocess.run(alone, cwd=project, check=True, capture_output=True)
    theirs = str(ExpRefInfo(ledger.baseline, "alone"))
    assert small.git(project, "diff", "--name-only", theirs, place) == ""
    assert "dvc.lock" in small.git(project, "diff", "--name-only", "main", place)

    small.git(project, "checkout", "-q", "-f", "main")
    with chdir(project):
        row = next(row for row in experiments.read([]) if row.name == "point")
    assert row.params["prune"]["sparsity"] == 0.45
    assert row.metrics["learn.size"] == json.loads(repository.read(rev, "metrics/learn.json") or b"")["size"]
    with small.repo(project) as dvc:
        dvc.experiments.apply("point")
        assert dvc.reproduce(dry=True, allow_missing=True) == []  # pyright: ignore[reportCallIssue]
        assert dvc.reproduce() == []  # pyright: ignore[reportCallIssue]
    assert small.git(project, "diff", "--name-only", place) == ""


@pytest.mark.slow
def test_the_branch_goes_on_by_its_own_results(project: Path, repository: Repository) -> None:
    (project / "src/learn.txt").write_text("new")
    rev = small.commit(project)
    repository.fetch("refs/heads/*")
    ledger, asked = knows(repository, rev), ask(repository, rev, ())
    [job, last] = plan(ledger, asked)
    assert (job.stages, last.stages) == (("learn", "cut"), ("tell",))
    ledger.accept(job, carry_out(repository, ledger.start(job, asked)[1], job.stages, project))
    with pytest.raises(Refusal, match="point is not finished: it has no tell"):
        ledger.branch_commit(rev, asked)
    ledger.accept(last, carry_out(repository, ledger.start(last, asked)[1], last.stages, project))
    small.git(project, "checkout", "-q", "-f", "main")
    (project / "README.md").write_text("words")
    tip = small.commit(project)
    repository.fetch("refs/heads/*")
    new = ledger.branch_commit(tip, replace(asked, params_text=f"{asked.params_text}# as a machine writes it\n"))
    assert truth.doubts(repository, new) == {}
    assert repository.read(new, truth.PARAMS) == repository.read(tip, truth.PARAMS)
    small.git(project, "fetch", "-q", str(repository.folder), new)
    small.git(project, "merge", "-q", "--ff-only", new)
    with small.repo(project) as dvc:
        dvc.checkout(force=True)  # pyright: ignore
        assert dvc.reproduce() == []  # pyright: ignore
    assert small.git(project, "status", "--short") == ""
    (project / "src/learn.txt").write_text("newer")
    tip = small.commit(project)
    repository.fetch("refs/heads/*")
    with pytest.raises(Refusal, match="the branch has gone on since, and learn is another now"):
        ledger.branch_commit(tip, asked)


# ------------------------------------------------------------------------------- results as if a worker had sent them


def pretend(repository: Repository, start: str, asked: Asked, model: str) -> str:
    """As if `learn` had come out as `model`: what DVC would note, written by hand."""
    block = truth.blocks(repository, "main")["learn"].replace("sparsity: 0.5", "sparsity: 0.45")
    entry = next(out for out in truth.entries(repository, "main")["learn"]["outs"] if out["path"] == "models/net")
    lines = (repository.read(start, "dvc.lock") or b"").decode() + block.replace(
        f"models/net\n      hash: md5\n      md5: {entry['md5']}",
        f"models/net\n      hash: md5\n      md5: {model * 32}",
    )
    return repository.commit(start, [start], {"dvc.lock": lines.encode()}, "Result\n")


def test_only_what_is_proven_is_taken_and_only_of_this_job(repository: Repository) -> None:
    ledger, asked = knows(repository), ask(repository)
    job, last = plan(ledger, asked)
    _, start = ledger.start(job, asked)
    good = pretend(repository, start, asked, "a")
    bent = repository.commit(good, [start], {"metrics/learn.json": b'{"size": 1}'}, "Better\n")
    lines = (repository.read(good, "dvc.lock") or b"").decode()
    read = truth.entries(repository, good)["learn"]["deps"][1]["md5"]
    mine = lines.replace(read, hashlib.md5(b"mine", usedforsecurity=False).hexdigest()).encode()
    other = repository.commit(good, [start], {"src/learn.txt": b"mine", "dvc.lock": mine}, "Other code\n")
    assert "learn" in truth.proven(repository, other)
    grandchild = repository.commit(good, [good, start], {}, "Two parents\n")
    assert ledger.accept(job, bent) == set()
    assert ledger.accept(job, other) == set()
    for strange in (grandchild, repository.sha("main"), repository.commit("main", ["main"], {}, "Unasked\n")):
        with pytest.raises(Refusal, match=f"is no child of a start of job {job.key}"):
            ledger.accept(job, strange)
    assert ledger.accept(last, good) == set()
    learnt = asked.keys["learn"]
    assert ledger.accept(job, good) == {learnt}
    assert [one.stages for one in plan(ledger, asked)] == [("cut",), ("tell",)]
    assert ledger.accept(job, good) == {learnt}
    assert ledger.accept(job, pretend(repository, start, asked, "b")) == set()
    again = ledger.start(job, asked)[1]
    assert truth.proven(repository, again) == {stage: asked.keys[stage] for stage in ("draw", "learn")}


def test_what_rests_on_other_results_does_not_count(repository: Repository) -> None:
    """Two coordinators had `learn` run, which came out twice."""
    ours, theirs, asked = knows(repository), knows(repository), ask(repository)
    job = plan(ours, asked)[0]
    _, start = ours.start(job, asked)
    first, second = (pretend(repository, start, asked, model) for model in "ab")
    ours.accept(job, first)
    theirs.accept(job, second)
    cut = plan(theirs, asked)[0]
    _, next_start = theirs.start(cut, asked)
    block = truth.blocks(repository, "main")["cut"]
    read = truth.entries(repository, "main")["cut"]["deps"][0]["md5"]
    lines = (repository.read(next_start, "dvc.lock") or b"").decode() + block.replace(read, "b" * 32)
    result = repository.commit(next_start, [next_start], {"dvc.lock": lines.encode()}, "Result\n")
    assert ours.accept(cut, result) == set()
    assert ours.learn(result) == {asked.keys["tell"]}  # whose words came out the same
    assert theirs.accept(cut, result) == {asked.keys["cut"]}
    ours.forget([asked.keys["learn"]])
    assert ours.learn(result) == {asked.keys["learn"], asked.keys["cut"]}
    theirs.forget([asked.keys["learn"]])
    assert asked.keys["cut"] in theirs.done
    assert theirs.accept(job, first) == {asked.keys["learn"]}
    assert asked.keys["cut"] not in theirs.done


def test_a_strangers_experiment_stops_nobody_but_ones_own_baseline_does(project: Path, repository: Repository) -> None:
    (project / "dvc.lock").write_text("<<<<<<< HEAD\n")
    rev = small.commit(project)
    repository.fetch("refs/heads/*")
    assert knows(repository, "main~1").learn(rev) == set()
    with pytest.raises(Refusal, match=r"dvc.lock of .* is not as DVC writes it"):
        knows(repository, rev)
