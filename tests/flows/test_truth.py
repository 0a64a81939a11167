"""What git proves is what DVC finds up to date with all data at hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.core import truth
from flows.core.repository import Repository
from stages.core.running.errors import Refusal
from stages.core.running.sources import ROOT
from tests.flows import small

ALL = ["draw", "learn", "cut", "tell"]


def edit(path: str, before: str, after: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        text = (project / path).read_text()
        assert before in text
        (project / path).write_text(text.replace(before, after, 1))

    return change


def add(path: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        (project / path).write_text("new\n")

    return change


def add_data(project: Path) -> None:
    add("raw/3.txt")(project)
    with small.repo(project) as dvc:
        dvc.add("raw")  # pyright: ignore[reportArgumentType]


def forget(project: Path) -> None:
    text = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text(text[: text.index("  cut:")] + text[text.index("  tell:") :])


CHANGES: dict[str, tuple[Callable[[Path], None], list[str], list[str]]] = {  # stages with new keys; stages in doubt
    "nothing": (lambda project: None, [], []),
    "a source": (edit("src/learn.txt", "src", "new"), ALL[1:], ALL[1:]),
    "a file more": (add("src/draw/deep/more.txt"), ALL, ALL),
    "a file that DVC ignores": (edit("src/draw/b.partial", "src", "new"), [], []),
    "data": (add_data, ALL, ALL),
    "a number": (edit("params.yaml", "seed: 0", "seed: 1"), ALL, ALL),
    "a list": (edit("params.yaml", "scan: [0.25,", "scan: [0.2,"), ALL[1:], ALL[1:]),
    "a parameter of nobody": (edit("params.yaml", "rounds:", "rounds: 7 #"), [], []),
    "a blank in a command": (edit("dvc.yaml", "wc models/net", "wc  models/net"), ALL[2:], ALL[2:]),
    "a file beside those of stages": (edit("metrics/curves/by_hand.csv", "1", "2"), ["tell"], ["tell"]),
    "a metric": (edit("metrics/learn.json", "size", "sise"), [], ["learn", "cut", "tell"]),
    "a curve": (edit("metrics/curves/cut.csv", "1", "2"), [], ["cut", "tell"]),
    "no entry": (forget, [], ["cut", "tell"]),
    "what it read": (
        edit(
            "dvc.lock",
            "    - path: src/learn.txt\n      hash: md5\n      md5: 3",
            "    - path: src/learn.txt\n      hash: md5\n      md5: 4",
        ),
        [],
        ALL[1:],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_in_doubt_is_what_dvc_would_run(name: str, project: Path, repository: Repository) -> None:
    change, new, doubted = CHANGES[name]
    before = truth.keys(repository, "main")
    change(project)
    rev = small.commit(project)
    repository.fetch("refs/heads/*")
    assert [stage for stage, key in truth.keys(repository, rev).items() if key != before[stage]] == new
    assert sorted(truth.doubts(repository, rev)) == sorted(doubted)
    assert list(truth.proven(repository, rev)) == [stage for stage in ALL if stage not in doubted]
    with small.repo(project) as dvc:
        changed = ALL & dvc.status().keys()
    above = truth.parents(truth.stages(repository, rev))
    for stage in above:
        changed |= {stage} if above[stage] & changed else set()
    assert changed == set(doubted)


def test_a_dep_that_is_no_more_is_another_stage(project: Path, repository: Repository) -> None:
    """Which DVC does not notice."""
    before = truth.keys(repository, "main")
    edit("dvc.yaml", ", src/learn.txt]", "]")(project)
    rev = small.commit(project)
    repository.fetch("refs/heads/*")
    assert truth.keys(repository, rev)["learn"] != before["learn"]
    assert truth.doubts(repository, rev)["learn"] == "it ran with other deps"


def test_keys_are_known_before_their_parameters_are_committed(project: Path, repository: Repository) -> None:
    edit("params.yaml", "seed: 0", "seed: 1")(project)
    early = truth.keys(repository, "main", (project / "params.yaml").read_text())
    rev = small.commit(project)
    repository.fetch("refs/heads/*")
    assert truth.keys(repository, rev) == early
    assert len(set(early.values())) == len(ALL)


def test_pools_are_told_by_dvc_yaml(repository: Repository) -> None:
    assert {name: stage.pool for name, stage in truth.stages(repository, "main").items()} == {
        "draw": "cpu",
        "learn": "gpu",
        "cut": "gpu",
        "tell": "cpu",
    }


def test_targets_and_what_they_need(repository: Repository) -> None:
    known = truth.stages(repository, "main")
    assert truth.wanted(known, ["cut"]) == ["draw", "learn", "cut"]
    assert truth.wanted(known, ["tell"]) == ALL
    with pytest.raises(Refusal, match=r"dvc.yaml has no stage tel; it has draw, learn, cut, tell"):
        truth.wanted(known, ["tel"])


@pytest.mark.parametrize(
    ("path", "was", "now", "said"),
    [
        ("dvc.lock", "  draw:\n", "<<<<<<< HEAD\n  draw:\n", "dvc.lock of .* is not as DVC writes it"),
        ("dvc.lock", "  draw:\n", "  draw:\n<<<<<<< HEAD\n", "dvc.lock of .* is not as DVC writes it"),
        ("dvc.lock", "'2.0'", "'3.0'", "is not as DVC writes it"),
        ("dvc.lock", "    cmd: mkdir", "    cmd: [mkdir", "is not as DVC writes it"),
        ("dvc.yaml", "meta: {pool: cpu}", "meta: {pool: tpu}", "dvc.yaml says draw: pool tpu"),
        ("dvc.yaml", "meta: {pool: cpu}", "frozen: true", "dvc.yaml says draw: frozen"),
        ("dvc.yaml", "cat raw", "cat ${raw}", r"dvc.yaml says \$\{\}"),
        ("dvc.yaml", "deps: [models/net]", "deps: [data/drawn/all.txt]", "cut: data/drawn/all.txt in data/drawn"),
        ("dvc.yaml", "deps: [raw, src/draw]", "deps: [raw, src/darw]", "draw reads src/darw, which is not in commit"),
        ("dvc.yaml", "deps: [raw, src/draw]", "deps: [raw, page.txt]", "goes round in a circle: .*draw"),
        ("dvc.yaml", "stages:", "stages: [", "can be read"),
        ("params.yaml", "seed: 0", "sed: 0", "params.yaml has no seed, which draw reads"),
        ("params.yaml", "seed: 0", "seed: [", "params.yaml is not YAML"),
    ],
)
def test_what_nobody_can_prove_is_said(
    path: str, was: str, now: str, said: str, project: Path, repository: Repository
) -> None:
    edit(path, was, now)(project)
    rev = small.commit(project)
    repository.fetch("refs/heads/*")
    with pytest.raises(Refusal, match=said):
        truth.proven(repository, rev)


def test_a_commit_without_a_lock_proves_nothing(project: Path, repository: Repository) -> None:
    (project / "dvc.lock").unlink()
    rev = small.commit(project)
    repository.fetch("refs/heads/*")
    assert truth.doubts(repository, rev) == dict.fromkeys(ALL, "dvc.lock does not know it")
    (project / "dvc.yaml").unlink()
    rev = small.commit(project)
    repository.fetch("refs/heads/*")
    with pytest.raises(Refusal, match=r"dvc.yaml is not in commit"):
        truth.keys(repository, rev)


def test_results_of_this_project_are_proven(tmp_path: Path) -> None:
    """Those that were committed last; what has become of the code since is another matter."""
    last = small.git(ROOT, "log", "-1", "--format=%H", "--", "dvc.lock")
    repository = Repository.open(str(ROOT), tmp_path / "mirror.git")
    assert truth.doubts(repository, last) == {}
    assert truth.proven(repository, last) == truth.keys(repository, last)
