"""Names are given once, and to what they say; a branch goes on only from where its people left it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from flows.core import promoting, truth
from flows.core.coordinator import Coordinator, Fate
from tests.flows import small
from tests.flows.by_formula import DONE
from tests.flows.test_coordinator import PIPELINE, STAGES, World, fates, finish, params, world

__all__ = ["world"]


def spoil(world: World) -> str:
    """No entry in dvc.lock."""
    return world.origin.commit("main", ["main"], {"metrics/tell.json": b"{}"}, "Mine\n")


def unreadable(world: World) -> str:
    return world.origin.commit("main", ["main"], {"dvc.lock": b"<<<<<<< HEAD\n"}, "Mine\n")


def swapped(world: World) -> str:
    """Proven, but another point."""
    return world.experiments["s-1-0.2"]


@pytest.mark.slow
@pytest.mark.parametrize("other", [spoil, unreadable, swapped])
def test_a_name_that_is_taken_by_something_else_is_left_alone(world: World, other: Callable[[World], str]) -> None:
    bad, good = world.grid((1,))
    world.sweep([good])
    theirs = other(world)
    ref = promoting.place(world.origin.sha("main"), bad.name)
    world.origin.create({ref: theirs})
    found = world.sweep([bad, good])
    assert fates(found) == {
        bad.name: (Fate.FAILED, f"another experiment is called {bad.name}: remove or rename it"),
        good.name: (Fate.FINISHED, ""),
    }
    assert world.experiments[bad.name] == theirs


@pytest.mark.slow
def test_a_rivals_experiment_that_proves_the_same_is_as_good(world: World) -> None:
    """Another one wrote it at another time, of which we had not heard."""
    [one] = asked = world.grid((1,), (0.1,))
    world.sweep(asked)
    ref = promoting.place(world.origin.sha("main"), one.name)
    theirs = world.origin.commit(world.experiments[one.name], ["main"], {"note.txt": b"mine"}, "Theirs\n")
    world.origin.delete([ref])
    world.origin.create({ref: theirs})
    assert world.sweep(asked).points[one.name].rev == theirs


# ------------------------------------------------------------------------------------------------------ on a branch


def on_branch(world: World, meanwhile: Callable[[], object]) -> Coordinator:
    """Somebody does something while the pipeline runs."""
    asked = replace(world.asked(0, 0.5), name="main")
    done: list[object] = []

    def hear(verb: str) -> None:
        if verb == "asked" and not done:
            done.append(meanwhile())

    return finish(world.coordinator(hear, branch="main"), [asked])


def commit(world: World, path: str, content: str) -> str:
    small.git(world.project, "switch", "-q", "main")
    (world.project / path).write_text(content)
    rev = small.commit(world.project)
    small.git(world.project, "switch", "-q", "-d")
    return rev


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_branch_goes_on_by_one_commit_on_top_of_what_is_there(world: World, is_moved: bool) -> None:
    base = tip = commit(world, "README.md", "words")

    def meanwhile() -> None:
        nonlocal tip
        if is_moved:
            tip = commit(world, "README.md", "better words")

    found = on_branch(world, meanwhile)
    rev = world.origin.refs("refs/heads/main")["refs/heads/main"]
    assert fates(found) == {"main": (Fate.FINISHED, "")}
    assert found.points["main"].rev == rev
    assert (base == tip) == (not is_moved)
    assert world.origin.parents(rev) == (tip,)
    assert world.origin.read(rev, "README.md") == (b"better words" if is_moved else b"words")
    assert world.origin.read(rev, "params.yaml") == params(0, 0.5).encode()
    assert truth.proven(world.origin, rev).keys() == set(STAGES)
    assert on_branch(world, lambda: None).points["main"].rev == rev
    assert set(world.hands.executed.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("params.yaml", params(0, 0.7), "prune is another now"),
        ("dvc.yaml", PIPELINE.replace("cmd: teach", "cmd: teach --well"), "teach is another now"),
        ("dvc.yaml", "stages: [", "has no stages with commands of their own that can be read"),
    ],
)
def test_a_branch_that_is_another_by_now_is_left_alone(world: World, path: str, content: str, told: str) -> None:
    tips: list[str] = []
    found = on_branch(world, lambda: tips.append(commit(world, path, content)))
    [(fate, reason)] = fates(found).values()
    assert fate is Fate.FAILED
    assert told in reason
    assert [world.origin.refs("refs/heads/main")["refs/heads/main"]] == tips


@pytest.mark.slow
def test_a_branch_that_is_gone_is_told(world: World) -> None:
    small.git(world.project, "switch", "-q", "-d")
    found = on_branch(world, lambda: world.origin.delete(["refs/heads/main"]))
    assert fates(found) == {"main": (Fate.FAILED, "there is no branch main any more")}


@pytest.mark.slow
def test_a_branch_that_moves_between_look_and_push_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.git(world.project, "switch", "-q", "-d")
    moves = iter(range(2))
    forward = promoting.Ledger.branch_commit

    def slow(ledger: promoting.Ledger, tip: str, asked: promoting.Asked) -> str:
        new = forward(ledger, tip, asked)
        for number in moves:
            commit(world, "README.md", f"words {number}")
            break
        return new

    monkeypatch.setattr(promoting.Ledger, "branch_commit", slow)
    world.with_hands(lambda work, attempt, content: DONE)
    found = on_branch(world, lambda: None)
    rev = world.origin.refs("refs/heads/main")["refs/heads/main"]
    assert found.points["main"].rev == rev
    assert world.origin.read(rev, "README.md") == b"words 1"
    assert not list(moves)
