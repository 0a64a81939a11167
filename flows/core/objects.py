"""Git's objects, read through one process that stays open: a thousand commits take as long as a few programs."""

import subprocess
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stages.core.running.errors import Refusal

FOLDER = b"40000"
FILES = (b"100644", b"100755", b"120000")


@dataclass(frozen=True)
class Found:
    sha: str
    kind: str
    content: bytes


@dataclass(frozen=True)
class Entry:
    mode: bytes
    sha: str


class Objects:
    """`git cat-file --batch` in a repository; threads take turns. It ends with this object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._trees: dict[str, dict[str, Entry]] = {}

    def get(self, name: str) -> Found | None:
        """By any name that git knows, such as `<commit>:<path>`."""
        if "\n" in name:
            return None
        with self._turn:
            try:
                return self._asked(name)
            except (OSError, ValueError):  # somebody ended it
                self._process = None
            try:
                return self._asked(name)
            except (OSError, ValueError) as error:
                raise Refusal(f"git cannot read {name}: remove {self.folder}, it is cloned anew") from error

    def at(self, tree: str, path: str) -> Entry | None:
        """A file or folder below a tree; trees stay in memory, since commits share most of theirs."""
        found: Entry | None = Entry(FOLDER, tree)
        for part in filter(None, path.split("/")):
            found = self._tree(found.sha).get(part) if found and found.mode == FOLDER else None
        return found

    def below(self, tree: str) -> dict[str, str]:
        """Blobs of all files under a tree, by their paths from there."""
        files: dict[str, str] = {}
        for name, entry in self._tree(tree).items():
            if entry.mode == FOLDER:
                files |= {f"{name}/{path}": blob for path, blob in self.below(entry.sha).items()}
            elif entry.mode in FILES:
                files[name] = entry.sha
        return files

    def _tree(self, sha: str) -> dict[str, Entry]:
        if sha not in self._trees:
            found = self.get(sha)
            self._trees[sha] = dict(_entries(found)) if found else {}
        return self._trees[sha]

    def _asked(self, name: str) -> Found | None:
        process = self._process or self._begin()
        if process.stdin is None or process.stdout is None:
            raise ValueError("no pipes")
        process.stdin.write(name.encode() + b"\n")
        process.stdin.flush()
        answer = process.stdout.readline().split()
        if not answer:
            raise ValueError("it has ended")
        if answer[-1] in (b"missing", b"ambiguous") or len(answer) != 3:
            return None
        sha, kind, size = answer
        content = process.stdout.read(int(size) + 1)
        if len(content) <= int(size):
            raise ValueError("it ended in the middle")
        return Found(sha.decode(), kind.decode(), content[:-1])

    def _begin(self) -> "subprocess.Popen[bytes]":
        command = ["git", "-C", str(self.folder), "cat-file", "--batch"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        weakref.finalize(self, _end, process)
        self._process = process
        return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()
    process.kill()
    process.wait()


def _entries(tree: Found) -> Iterator[tuple[str, Entry]]:
    """A tree is a row of `<mode> <name>`, a zero byte and the bare digest."""
    content, width = tree.content, len(tree.sha) // 2
    while content:
        head, _, rest = content.partition(b"\0")
        mode, _, name = head.partition(b" ")
        yield name.decode(errors="surrogateescape"), Entry(mode, rest[:width].hex())
        content = rest[width:]
