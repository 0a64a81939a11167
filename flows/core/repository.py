"""The git repository through which coordinators and workers hear of each other: objects and refs, no work tree."""

import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from flows.core.objects import FILES, Found, Objects
from stages.core.running.errors import Refusal

IDENTITY = "LightVision <lightvision@localhost>"
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=10 -o ServerAliveCountMax=2"
PATIENT = ("http.lowSpeedLimit=1", "http.lowSpeedTime=30", "gc.auto=0", "maintenance.auto=false")
OF_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")  # what a hook is told
AT_ONCE = 500  # refs in one call, whose length systems limit
NOBODY_ANSWERS = re.compile(
    "could not resolve|couldn't resolve|temporary failure in name resolution|could not connect|couldn't connect"
    "|failed to connect|timed out|timeout|connection (refused|reset|closed|aborted)|no route to host|unreachable"
    "|hung up|early eof|unexpected disconnect|broken pipe|kex_exchange|lost connection|returned error: 5"
    r"|remote failure|\.lock': file exists",
    re.IGNORECASE,
)


class Unreachable(Exception):
    """Nobody answers at the repository's address: worth another try, later."""


@dataclass(frozen=True)
class Repository:
    """A bare clone in `folder` of what lies at `url`; others borrow its objects, so nothing is ever thrown away."""

    url: str
    folder: Path

    @classmethod
    def open(cls, url: str, folder: Path) -> "Repository":
        """The clone that is there, or a new one; several processes may ask at once."""
        url = url if "://" in url or not Path(url).exists() else str(Path(url).resolve())
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if not (folder / "HEAD").is_file():
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".clone-") as begun:
                    whole = Path(begun) / "git"
                    _git(["clone", "--quiet", "--bare", url, str(whole)], f"clone {told(url)}")
                    for setting in ("gc.auto=0", "maintenance.auto=false"):
                        _git(["-C", str(whole), "config", *setting.split("=")], "set up a clone")
                    shutil.rmtree(folder, ignore_errors=True)
                    whole.rename(folder)
        return cls(url, folder)

    def fetch(self, *patterns: str) -> None:
        """Refs that match, under the same names; those that are gone there are gone here."""
        same = [f"+{pattern}:{pattern}" for pattern in patterns]
        with _lock(self.folder):
            self._run("fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", self.url, *same)

    def refs(self, *patterns: str) -> dict[str, str]:
        """Commits by their refs, as the server has them now."""
        lines = self._run("ls-remote", "--quiet", "--refs", self.url, *patterns).splitlines()
        return {ref: sha for sha, _, ref in (line.partition("\t") for line in lines)}

    def read(self, rev: str, path: str) -> bytes | None:
        """A file of a commit; None where it has none."""
        found = self._objects.at(self._tree(rev), path)
        return self.blob(found.sha) if found and found.mode in FILES else None

    def blob(self, sha: str) -> bytes:
        found = self._objects.get(sha)
        if found is None:
            raise Refusal(f"{self.folder} has no object {sha}: remove the folder, it is cloned anew")
        return found.content

    def listing(self, rev: str, path: str) -> dict[str, str]:
        """Blobs of the files at or below a path, by their paths from the root."""
        found = self._objects.at(self._tree(rev), path)
        if found is None:
            return {}
        if found.mode in FILES:
            return {path: found.sha}
        return {f"{path}/{name}".lstrip("/"): blob for name, blob in self._objects.below(found.sha).items()}

    def write(self, rev: str, folder: Path) -> None:
        """All files of a commit, as far as they are read."""
        for path, blob in self.listing(rev, "").items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(self.blob(blob))

    def sha(self, rev: str) -> str:
        """The commit that a name stands for now."""
        return self._commit(rev).sha

    def parents(self, rev: str) -> tuple[str, ...]:
        return tuple(words[1] for words in self._header(rev) if words[0] == "parent")

    def commit(
        self,
        tree_of: str,
        parents: Sequence[str],
        changes: Mapping[str, bytes | None],
        message: str,
        when: int | None = None,
    ) -> str:
        """The tree of a commit with some files changed, or gone; the same arguments are the same commit.

        Its time is the first parent's where none is given.
        """
        when = self.time((*parents, tree_of)[0]) if when is None else when
        lines = b"".join(self._dictated(tree_of, parents, changes, message, when))
        return self._run("fast-import", "--quiet", told_it=lines).strip()

    def create(self, refs: Mapping[str, str]) -> dict[str, bool]:
        """Pushes refs that must not be there yet; False for one that was there with another content."""
        fates: dict[str, bool] = {}
        for some in _portions(refs):
            fates |= self._push({ref: refs[ref] for ref in some}, dict.fromkeys(some, ""))
        return fates

    def forward(self, branch: str, old: str, new: str) -> bool:
        """Moves a branch, only if it is still where it was."""
        ref = f"refs/heads/{branch}"
        return self._push({ref: new}, {ref: old})[ref]

    def delete(self, refs: Iterable[str]) -> None:
        """Those that are there."""
        for some in _portions(refs):
            if there := self.refs(*some):
                self._push(dict.fromkeys(there, ""), there)

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self.folder)

    @cached_property
    def _trees(self) -> dict[str, str]:
        return {}

    def _commit(self, rev: str) -> Found:
        found = self._objects.get(f"{rev}^{{commit}}")
        if found is None:
            raise Refusal(f"{told(self.url)} has no commit {rev}: push it first")
        return found

    def _header(self, rev: str) -> list[list[str]]:
        head, _, _ = self._commit(rev).content.partition(b"\n\n")
        return [line.split() for line in head.decode(errors="replace").splitlines() if line.strip()]

    def _tree(self, rev: str) -> str:
        """A commit stays what it is, a name does not."""
        if rev not in self._trees:
            tree = next(words[1] for words in self._header(rev) if words[0] == "tree")
            if len(rev) != len(tree):
                return tree
            self._trees[rev] = tree
        return self._trees[rev]

    def time(self, rev: str) -> int:
        """When a commit was made, in seconds."""
        return next(int(words[-2]) for words in self._header(rev) if words[0] == "committer")

    def _dictated(
        self, tree_of: str, parents: Sequence[str], changes: Mapping[str, bytes | None], message: str, when: int
    ) -> Iterator[bytes]:
        """As `git fast-import` takes it: one program for a commit with all its files, and no ref remains."""
        tree = self._tree(tree_of)
        ref = f"refs/lightvision/dictated/{uuid.uuid4().hex}"
        yield f"feature done\ncommit {ref}\nmark :1\n".encode()
        yield f"author {IDENTITY} {when} +0000\ncommitter {IDENTITY} {when} +0000\n".encode()
        yield _data(message.encode())
        for verb, parent in zip(("from", *["merge"] * len(parents)), parents, strict=False):
            yield f"{verb} {parent}\n".encode()
        yield f'M 040000 {tree} ""\n'.encode()
        for path, content in sorted(changes.items()):
            yield f"D {_quoted(path)}\n".encode() if content is None else _file(path, content)
        yield f"get-mark :1\nreset {ref}\nfrom {'0' * len(tree)}\n\ndone\n".encode()

    def _push(self, refs: Mapping[str, str], expected: Mapping[str, str]) -> dict[str, bool]:
        """Whether each ref is now what it was to be; nothing is touched that is not as expected."""
        leases = [f"--force-with-lease={ref}:{old}" for ref, old in expected.items()]
        words = [
            "push",
            "--porcelain",
            "--no-verify",
            *leases,
            self.url,
            *(f"{sha}:{ref}" for ref, sha in refs.items()),
        ]
        done = _program(["-C", str(self.folder), *words])
        fates = dict(_fates(done.stdout))
        if done.returncode and len(fates) < len(refs):
            raise _trouble(done, f"push to {told(self.url)}")
        refused = {ref: why for ref, why in fates.items() if why}
        there = self.refs(*refused) if refused else {}
        if any(there.get(ref, "") == expected[ref] for ref in refused):  # it was no other who came first
            raise _trouble(done, f"push to {told(self.url)}")
        return {ref: ref not in refused or there.get(ref, "") == sha for ref, sha in refs.items()}

    def _run(self, *words: str, told_it: bytes = b"") -> str:
        done = _program(["-C", str(self.folder), *words], told_it)
        if done.returncode:
            raise _trouble(done, f"{words[0]} {told(self.url)}")
        return done.stdout


def environment() -> dict[str, str]:
    """For any git of ours: it asks nobody, speaks English, and notices within half a minute that the network is cut."""
    here = {name: value for name, value in os.environ.items() if name not in OF_GIT}
    return {"GIT_SSH_COMMAND": SSH} | here | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


def told(url: str) -> str:
    """An address without a password."""
    return re.sub(r"//([^:/@]*):[^/@]*@", r"//\1@", url)


def _git(words: Sequence[str], doing: str) -> None:
    done = _program(words)
    if done.returncode:
        raise _trouble(done, doing)


def _program(words: Sequence[str], told_it: bytes = b"") -> "subprocess.CompletedProcess[str]":
    command = ["git", *(word for setting in PATIENT for word in ("-c", setting)), *words]
    done = subprocess.run(command, input=told_it, capture_output=True, env=environment())
    out, errors = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, out, errors)


def _trouble(done: "subprocess.CompletedProcess[str]", doing: str) -> Exception:
    """What git said first is what went wrong; the rest is advice to somebody at a keyboard."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    kind = Unreachable if NOBODY_ANSWERS.search(done.stderr + done.stdout) else Refusal
    refused = [line.rpartition("\t")[2] for line in done.stdout.splitlines() if line.startswith("!\t")]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))]
    said = (refused or fatal or lines or [f"status {done.returncode}"])[0]
    return kind(f"git cannot {doing}: {told(re.sub('^(fatal|error): ', '', said))}")


def _fates(shown: str) -> Iterator[tuple[str, str]]:
    """Refs of `git push --porcelain`, with the reason where one was refused."""
    for line in shown.splitlines():
        flag, *rest = line.split("\t")
        if len(rest) == 2:
            yield rest[0].rpartition(":")[2], rest[1] if flag == "!" else ""


def _portions(refs: Iterable[str]) -> Iterator[list[str]]:
    every = list(refs)
    for first in range(0, len(every), AT_ONCE):
        yield every[first : first + AT_ONCE]


def _file(path: str, content: bytes) -> bytes:
    return f"M 100644 inline {_quoted(path)}\n".encode() + _data(content)


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> str:
    """As git quotes C's way."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))
