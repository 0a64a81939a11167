"""A job on its host: what it leaves is whole and its own, and what it was given was what dvc.lock says."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows.core import remote, workspace
from flows.core.repository import Repository
from flows.core.work import Work
from flows.core.workspace import HostTrouble, StageFailed
from lightvision.host import Host, take

ONE = "mkdir -p data/one metrics && echo a > data/one/a && echo b > data/one/b && echo 1 > metrics/one"
TWO = "test -e refuse && echo 'two: I say no' >&2 && exit 1; test -e die && kill -9 $$; cat data/one/a > data/two"
pytestmark = pytest.mark.slow  # DVC takes a second to be imported, by each job


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class World:
    """A git server, a DVC remote, and one host that can be forgotten."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project, self.server = folder, folder / "project", folder / "server.git"
        self.store = folder / "store"
        git(folder, "init", "-q", "--bare", "-b", "main", str(self.server))
        git(folder, "clone", "-q", str(self.server), str(self.project))
        self._write(".dvc/config", f"[core]\nremote = store\n['remote \"store\"']\nurl = {self.store}\n")
        self._write(".gitignore", "/data/\n")
        stages = {
            "one": {"cmd": ONE, "outs": ["data/one"], "metrics": [{"metrics/one": {"cache": False}}]},
            "two": {"cmd": TWO, "deps": ["data/one/a"], "outs": ["data/two"]},
        }
        (self.project / "dvc.yaml").parent.mkdir(exist_ok=True)
        YAML().dump({"stages": stages}, self.project / "dvc.yaml")
        self.asked = self.start("start")

    def _write(self, path: str, text: str) -> None:
        (self.project / path).parent.mkdir(parents=True, exist_ok=True)
        (self.project / path).write_text(text)

    def start(self, name: str, **files: str) -> str:
        for path, text in files.items():
            self._write(path, text)
        git(self.project, "add", "-A", "-f", ".dvc/config", ".")
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        git(self.project, *identity, "commit", "-qm", name, "--allow-empty")
        git(self.project, "push", "-qf", "origin", f"HEAD:refs/lightvision/starts/{name}", "HEAD:main")
        return git(self.project, "rev-parse", "HEAD")

    def work(self, stages: Sequence[str], start: str = "", ref: str = "start", target: str = "job/1") -> Work:
        return Work(
            repository=str(self.server),
            baseline=self.asked,
            start=start or git(self.project, "rev-parse", "HEAD"),
            start_ref=f"refs/lightvision/starts/{ref}",
            stages=tuple(stages),
            target=f"refs/lightvision/jobs/{target}",
            title="a title",
            experiment="name",
        )

    def after_one(self) -> Work:
        """The job of `two`, on a host that has seen nothing, once `one` is done."""
        sha = workspace.carry_out(self.work(["one"], target="first/1"), print)
        git(self.server, "update-ref", "refs/lightvision/starts/second", sha)
        self.forget()
        return self.work(["two"], sha, "second", "second/1")

    def forget(self) -> None:
        subprocess.run(["rm", "-rf", str(Host.here().folder)], check=True)

    def objects(self, content: str) -> list[Path]:
        return [path for path in self.store.rglob("*") if path.is_file() and content in path.read_text()]

    def targets(self) -> dict[str, str]:
        return Repository.open(str(self.server), self.folder / "seen.git").refs("refs/lightvision/jobs/*")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LIGHTVISION_HOST_FOLDER", str(tmp_path / "host"))
    monkeypatch.setenv("LIGHTVISION_PATIENCE", "0")
    monkeypatch.setenv("LIGHTVISION_MIN_FREE_GB", "0")
    return World(tmp_path)


def spoil(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("spoilt")
    path.chmod(0o444)  # which DVC takes for a proof


def test_a_result_is_a_child_of_its_start_with_its_data_in_the_remote(world: World) -> None:
    work = world.work(["one", "two"])
    lines: list[str] = []
    sha = workspace.carry_out(work, lines.append)
    assert world.targets() == {work.target: sha}
    assert git(world.server, "rev-parse", f"{sha}^") == work.start
    assert git(world.server, "diff", "--name-only", f"{sha}^", sha).split() == ["dvc.lock", "metrics/one"]
    message = git(world.server, "log", "-1", "--format=%B", sha).splitlines()
    assert message[0] == "a title"
    assert message[2] == "Stages: one two"
    repository = Repository.open(str(world.server), world.folder / "seen.git")
    repository.fetch("refs/lightvision/jobs/*")
    assert remote.missing_at(repository, sha, ["one", "two"]) == []
    assert len(world.objects("a\n")) == 1  # of data/two, too
    assert not list(Host.here().jobs.iterdir())
    ran = [line for line in lines if line.startswith("Running stage")]
    assert len(ran) == 2
    assert workspace.carry_out(work, lines.append) == sha
    assert [line for line in lines if line.startswith("Running stage")] == ran


def test_a_run_is_of_the_commit_that_was_asked_for(world: World) -> None:
    command = 'mkdir -p data; python -c "from stages.core.running import identity; print(identity.commit())" > data/who'
    start = world.start("who", **{"dvc.yaml": json.dumps({"stages": {"who": {"cmd": command, "outs": ["data/who"]}}})})
    workspace.carry_out(world.work(["who"], start, "who"), print)
    assert start != world.asked
    assert len(world.objects(world.asked)) == 1


def test_who_is_first_stays(world: World) -> None:
    work = world.work(["one"])

    def overtake(line: str) -> None:
        if line.startswith("push:"):
            git(world.server, "update-ref", work.target, work.start)

    assert workspace.carry_out(work, overtake) == work.start
    assert world.targets() == {work.target: work.start}


@pytest.mark.parametrize(
    ("file", "raised", "said"),
    [("refuse", StageFailed, "two: I say no"), ("die", HostTrouble, "two: ended by signal 9")],
)
def test_what_finished_before_a_failure_is_kept(world: World, file: str, raised: type[Exception], said: str) -> None:
    start = world.start("start", **{file: ""})
    with pytest.raises(raised, match=f"^{said}$"):
        workspace.carry_out(world.work(["one", "two"], start), print)
    [sha] = world.targets().values()
    lock = YAML(typ="safe").load(git(world.server, "show", f"{sha}:dvc.lock"))
    assert list(lock["stages"]) == ["one"]
    assert world.objects("b\n")


@pytest.mark.parametrize("how", [spoil, Path.unlink])
@pytest.mark.parametrize("content", ["a\n", "relpath"])
def test_a_wrong_input_is_named_and_its_maker_mends_it(world: World, content: str, how: Callable[[Path], None]) -> None:
    work = world.after_one()
    [path] = world.objects(content)
    right = path.read_text()
    how(path)
    with pytest.raises(HostTrouble, match=r"^corrupt data/one$"):
        workspace.carry_out(work, print)
    assert not path.exists()
    world.forget()
    workspace.carry_out(world.work(["one"], target="first/2"), print)
    assert path.read_text() == right
    assert workspace.carry_out(work, print)


def test_a_host_mends_its_own_cache(world: World) -> None:
    work = world.after_one()
    sha = workspace.carry_out(work, print)
    [cached] = [path for path in Host.here().cache.glob("files/md5/*/*") if path.read_text() == "a\n"]
    spoil(cached)
    again = workspace.carry_out(work.model_copy(update={"target": "refs/lightvision/jobs/second/2"}), print)
    assert cached.read_text() == "a\n"
    assert git(world.server, "show", f"{again}:dvc.lock") == git(world.server, "show", f"{sha}:dvc.lock")


def test_what_the_remote_lacks_is_said(world: World) -> None:
    sha = workspace.carry_out(world.work(["one", "two"]), print)
    git(world.project, "fetch", "-q", "origin", "refs/lightvision/jobs/job/1")
    git(world.project, "checkout", "-q", sha)
    [path] = world.objects("b\n")
    path.unlink()
    assert remote.missing(world.project, ["one", "two"]) == ["data/one"]
    assert remote.missing(world.project, ["two"]) == []


def test_clones_of_killed_jobs_go_and_those_of_living_ones_stay(world: World) -> None:
    jobs = Host.here().jobs
    for name in ("dead", "living"):
        (jobs / name / "clone").mkdir(parents=True)
    lock = take(jobs / "living/lock")
    workspace.carry_out(world.work(["one"]), print)
    assert os.listdir(jobs) == ["living"]
    assert lock is not None
    os.close(lock)


def test_hosts_without_room_or_repository_say_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = world.work(["one"]).model_copy(update={"start": "0" * 40})
    with pytest.raises(HostTrouble, match="nobody wants it any more"):
        workspace.carry_out(gone, print)
    elsewhere = gone.model_copy(update={"repository": "ssh://127.0.0.1:1/nowhere"})
    with pytest.raises(HostTrouble):
        workspace.carry_out(elsewhere, print)
    monkeypatch.setenv("LIGHTVISION_MIN_FREE_GB", "1e9")
    with pytest.raises(HostTrouble, match="GB free in"):
        workspace.carry_out(gone, print)


def test_without_a_remote_the_cache_of_the_checkout_serves(world: World) -> None:
    world.start("start", **{".dvc/config": ""})
    work = world.work(["one"]).model_copy(update={"repository": str(world.project)})
    git(world.project, "update-ref", work.start_ref, work.start)
    workspace.carry_out(work, print)
    assert len(list((world.project / ".dvc/cache").rglob("*.dir"))) == 1
    assert not Host.here().cache.exists()
    assert not world.store.exists()
    with pytest.raises(HostTrouble, match="no default DVC remote"):
        workspace.carry_out(work.model_copy(update={"repository": str(world.server)}), print)
