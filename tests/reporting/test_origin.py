"""Where a page says that it comes from: code by its commit, results by what dvc.lock says of them."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from stages.core.reporting import origin

DVC = """
stages:
  prepare: {cmd: a b c d, deps: [code.py], outs: [data]}
  benchmark: {cmd: a b c d, deps: [code.py, data], metrics: [found.json: {cache: false}]}
  report: {cmd: a b c d, deps: [page.py, found.json], outs: [page.html]}
"""
LOCK = """
stages:
  prepare: {{cmd: x, outs: [{{path: data, md5: 1.dir}}]}}
  benchmark: {{cmd: x, outs: [{{path: found.json, md5: {md5}}}]}}
  report: {{cmd: x, outs: [{{path: page.html, md5: {page}}}]}}
"""
RESULTS = Path("found.json")


def git(*words: str) -> str:
    named = ("-c", "user.name=A", "-c", "user.email=a@b")
    return subprocess.run(["git", *named, *words], check=True, capture_output=True, text=True).stdout.strip()


def lock(page: str = "2") -> None:
    md5 = hashlib.md5(RESULTS.read_bytes(), usedforsecurity=False).hexdigest()
    Path("dvc.lock").write_text(LOCK.format(md5=md5, page=page))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its first commit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name, text in {"code.py": "1", "page.py": "1", "params.yaml": "a: 1", "dvc.yaml": DVC, "notes.md": "x"}.items():
        Path(name).write_text(text)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "code")
    RESULTS.write_text("{}")
    lock()
    return git("rev-parse", "HEAD")


def test_a_page_is_the_same_before_and_after_its_results_are_committed(project: str) -> None:
    before = origin.find("report", RESULTS)
    assert (before.commit, before.changed) == (project, ())
    lock(page="3")  # the page itself
    Path("notes.md").write_text("y")
    git("add", ".")
    git("commit", "-qm", "results and documents")
    assert git("rev-parse", "HEAD") != project
    assert origin.find("report", RESULTS) == before


def test_the_commands_bring_code_and_results_back(project: str) -> None:
    git("add", ".")
    git("commit", "-qm", "results")
    results = git("rev-parse", "HEAD")
    found = origin.find("report", RESULTS)
    (again, _), (files, _) = found.commands
    Path("code.py").write_text("2")
    RESULTS.write_text("[]")
    lock()
    git("commit", "-qam", "others")
    subprocess.run(again.replace("dvc repro", "true"), shell=True, check=True, capture_output=True)  # noqa: S602 - as a person pastes it
    assert git("rev-parse", "HEAD") == project
    git("checkout", "-q", "-")
    subprocess.run(files.replace("dvc checkout", "true"), shell=True, check=True, capture_output=True)  # noqa: S602 - as a person pastes it
    assert git("rev-parse", "HEAD") == results


@pytest.mark.parametrize("name", ["code.py", "page.py", "params.yaml"])
def test_a_changed_tree_is_named(name: str, project: str) -> None:
    Path(name).write_text("changed: true")
    found = origin.find("report", RESULTS)
    assert found.changed == (name,)
    assert f"this commit lacks changes of {name}." in found.code
    assert "without the changes" in found.commands[0][1]


def test_digests_follow_what_led_to_the_page_and_not_the_page(project: str) -> None:
    before = origin.find("report", RESULTS)
    lock(page="3")
    assert origin.find("report", RESULTS) == before
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace("1.dir", "4.dir"))
    after = origin.find("report", RESULTS)
    assert after.data != before.data
    assert after.lock != before.lock
    assert after.results == before.results


def test_results_that_dvc_lock_does_not_know_have_no_command(project: str) -> None:
    RESULTS.write_text("by hand")
    found = origin.find("report", RESULTS)
    assert not found.results
    assert "does not know these results" in found.locked
    assert [command for command, _ in found.commands if "dvc checkout" in command] == []


def test_outside_git_and_dvc_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = origin.find("report", RESULTS)
    assert found == origin.Origin()
    assert found.commands == []
    assert "No commit" in found.code
