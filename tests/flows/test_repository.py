"""Commits without a work tree are those that git would make in one; refs are created once, whoever comes first."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.core.objects import Objects
from flows.core.repository import IDENTITY, Repository, Unreachable
from stages.core.running.errors import Refusal

NAME, _, MAIL = IDENTITY.rstrip(">").partition(" <")
BY_US = {
    f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", NAME), ("EMAIL", MAIL))
}


def git(folder: Path, *words: str, when: int = 1_700_000_000) -> str:
    date = {"GIT_AUTHOR_DATE": f"{when} +0000", "GIT_COMMITTER_DATE": f"{when} +0000"}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | BY_US | date
    ).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A work tree, pushed to a server."""
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "server.git")
    git(tmp_path, "clone", "-q", "server.git", "tree")
    tree = tmp_path / "tree"
    (tree / "a b" / "deep").mkdir(parents=True)
    for path in ("one.txt", "a b/two.txt", "a b/deep/drei ü.txt"):
        (tree / path).write_text(path)
    git(tree, "checkout", "-qb", "main")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "first")
    git(tree, "push", "-q", "origin", "main")
    return tree


@pytest.fixture
def repository(tree: Path) -> Repository:
    return Repository.open(f"file://{tree.parent}/server.git", tree.parent / "mirror/one.git")


def test_whoever_opens_it_finds_a_whole_clone(tree: Path) -> None:
    def open_one(_: int) -> bytes | None:
        return Repository.open(str(tree.parent / "server.git"), tree.parent / "mirror/one.git").read("main", "one.txt")

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(open_one, range(4))) == {b"one.txt"}
    assert git(tree.parent / "mirror/one.git", "config", "gc.auto") == "0"
    assert sorted(os.listdir(tree.parent / "mirror")) == ["one.git", "one.git.lock"]


def test_files_are_read_as_git_shows_them(tree: Path, repository: Repository) -> None:
    assert repository.read("main", "a b/deep/drei ü.txt") == b"a b/deep/drei \xc3\xbc.txt"
    assert repository.read("main", "nothing") is None
    assert repository.read("main", "a b") is None
    lines = git(tree, "-c", "core.quotePath=false", "ls-tree", "-r", "main").splitlines()
    everything = {path: words.split()[2] for words, _, path in (line.partition("\t") for line in lines)}
    assert len(everything) == 3
    assert repository.listing("main", "") == everything
    assert repository.listing("main", "a b") == {path: sha for path, sha in everything.items() if path != "one.txt"}
    assert repository.listing("main", "one.txt") == {"one.txt": everything["one.txt"]}
    assert repository.listing("main", "nothing") == {}
    with pytest.raises(Refusal, match="has no commit 12345678"):
        repository.read("12345678", "one.txt")


def test_threads_share_a_reader_that_comes_again_when_it_is_killed(repository: Repository) -> None:
    paths = ["one.txt", "a b/two.txt"] * 100
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda path: repository.read("main", path), paths))
    assert found == [path.encode() for path in paths]
    process = repository._objects._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert repository.read("main", "one.txt") == b"one.txt"


def test_a_reader_ends_with_its_clone(repository: Repository) -> None:
    objects = Objects(repository.folder)
    assert objects.get("main") is not None
    process = objects._process
    assert process is not None
    assert process.poll() is None
    del objects
    assert process.poll() is not None


def test_a_commit_is_what_git_makes_of_the_same_files(tree: Path, repository: Repository) -> None:
    first = git(tree, "rev-parse", "HEAD")
    (tree / "one.txt").write_text("changed")
    (tree / "new folder").mkdir()
    (tree / "new folder" / 'it"s.txt').write_text("")
    git(tree, "rm", "-q", "a b/deep/drei ü.txt")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "second\n\nand why")
    changes = {"one.txt": b"changed", 'new folder/it"s.txt': b"", "a b/deep/drei ü.txt": None, "never there": None}
    second = repository.commit(first, [first], changes, "second\n\nand why\n")
    assert second == git(tree, "rev-parse", "HEAD")
    assert repository.commit(first, [first], changes, "second\n\nand why\n") == second
    assert repository.parents(second) == (first,)
    later = repository.commit(first, [first], changes, "second\n\nand why\n", when=1_800_000_000)
    git(tree, "commit", "-q", "--amend", "--no-edit", "--reset-author", when=1_800_000_000)
    assert later == git(tree, "rev-parse", "HEAD")
    tree_of_another = repository.commit(later, [first, later], {}, "a tree of its own\n")
    built = git(tree, "commit-tree", f"{later}^{{tree}}", "-p", first, "-p", later, "-m", "a tree of its own")
    assert tree_of_another == built
    assert "lightvision" not in git(repository.folder, "for-each-ref")


def test_a_ref_is_created_once(tree: Path, repository: Repository) -> None:
    first = git(tree, "rev-parse", "HEAD")
    ours, theirs = (repository.commit(first, [first], {"by": who}, "one\n") for who in (b"us", b"them"))
    there, here = "refs/lightvision/jobs/a/1", "refs/lightvision/jobs/a/2"
    assert repository.create({there: ours}) == {there: True}
    assert repository.create({there: theirs, here: theirs}) == {there: False, here: True}
    assert repository.create({there: ours, here: ours}) == {there: True, here: False}
    assert repository.refs("refs/lightvision/*") == {there: ours, here: theirs}
    repository.delete([there, "refs/lightvision/never"])
    assert repository.refs("refs/lightvision/*") == {here: theirs}


def test_two_at_once_and_one_of_them_is_first(tree: Path, repository: Repository) -> None:
    first = git(tree, "rev-parse", "HEAD")
    commits = [repository.commit(first, [first], {"by": bytes([who])}, "one\n") for who in range(65, 69)]
    with ThreadPoolExecutor(4) as threads:
        fates = list(threads.map(lambda sha: repository.create({"refs/exps/aa/bb/point": sha}), commits))
    won = [sha for sha, fate in zip(commits, fates, strict=True) if fate["refs/exps/aa/bb/point"]]
    assert won == list(repository.refs("refs/exps/*").values())


def test_another_who_makes_the_same_is_no_rival(tree: Path, repository: Repository) -> None:
    """It comes first while we push."""
    hook = tree.parent / "server.git/hooks/update"
    hook.write_text('#!/bin/sh\ngit update-ref "$1" "$3"\n')
    hook.chmod(0o755)
    first = git(tree, "rev-parse", "HEAD")
    assert repository.create({"refs/exps/aa/bb/point": first}) == {"refs/exps/aa/bb/point": True}
    hook.write_text(f'#!/bin/sh\ngit update-ref "$1" {repository.commit(first, [first], {}, "theirs")}\n')
    repository.create({"refs/heads/other": repository.commit(first, [first], {}, "theirs")})
    assert repository.create({"refs/exps/aa/bb/next": first}) == {"refs/exps/aa/bb/next": False}


def test_what_others_push_is_fetched_and_what_they_delete_is_gone(tree: Path, repository: Repository) -> None:
    git(tree, "push", "-q", "origin", "HEAD:refs/exps/aa/bb/one", "HEAD:refs/exps/aa/bb/two")
    repository.fetch("refs/exps/*", "refs/heads/*")
    assert git(repository.folder, "for-each-ref", "--format=%(refname)", "refs/exps").split() == [
        "refs/exps/aa/bb/one",
        "refs/exps/aa/bb/two",
    ]
    git(tree, "push", "-q", "origin", ":refs/exps/aa/bb/one")
    repository.fetch("refs/exps/*")
    assert git(repository.folder, "for-each-ref", "--format=%(refname)", "refs/exps") == "refs/exps/aa/bb/two"
    assert repository.read("main", "later.txt") is None
    (tree / "later.txt").write_text("later")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "second")
    git(tree, "push", "-q", "origin", "main")
    repository.fetch("refs/heads/*")
    assert repository.sha("main") == git(tree, "rev-parse", "HEAD")
    assert repository.read("main", "later.txt") == b"later"


def test_a_branch_goes_on_only_from_where_it_was(tree: Path, repository: Repository) -> None:
    first = git(tree, "rev-parse", "HEAD")
    second, other = (repository.commit(first, [first], {"by": who}, "one\n") for who in (b"us", b"them"))
    assert repository.forward("main", first, second)
    assert repository.forward("main", first, second)
    assert not repository.forward("main", first, other)
    assert repository.refs("refs/heads/*") == {"refs/heads/main": second}
    own = Repository.open(str(tree), tree.parent / "own.git")
    with pytest.raises(Refusal, match=r"^git cannot push to /.*branch is currently checked out"):
        own.forward("main", first, own.commit(first, [first], {"by": b"us"}, "one\n"))


def test_nobody_there_and_nothing_there_are_two_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ssh: connect to host git port 22: Connection refused"
    monkeypatch.setenv("GIT_SSH_COMMAND", f"echo '{said}' >&2; exit 255; #")
    with pytest.raises(Unreachable, match=r"^git cannot clone ssh://git/r: ssh: connect to host git port 22.*refused$"):
        Repository.open("ssh://git/r", tmp_path / "one.git")
    monkeypatch.setenv("GIT_SSH_COMMAND", "echo 'me@git: Permission denied (publickey).' >&2; exit 255; #")
    with pytest.raises(Refusal, match="ssh://me@git/r"):
        Repository.open("ssh://me:secret@git/r", tmp_path / "one.git")
    with pytest.raises(Refusal, match="nowhere"):
        Repository.open(f"file://{tmp_path}/nowhere", tmp_path / "one.git")
    assert not (tmp_path / "one.git").exists()
