"""The git repository through which coordinators and workers hear of each other: objects and refs, no work tree."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Unreachable(Exception):
    """Nobody answers at the repository's address: worth another try, later."""


@dataclass(frozen=True)
class Repository:
    """A bare clone in `folder` of what lies at `url`."""

    url: str
    folder: Path

    @classmethod
    def open(cls, url: str, folder: Path) -> "Repository":
        """The clone that is there, or a new one; several processes may ask at once."""
        raise NotImplementedError

    def fetch(self, *patterns: str) -> None:
        """Refs that match, under the same names; those that are gone there are gone here."""
        raise NotImplementedError

    def refs(self, *patterns: str) -> dict[str, str]:
        """Commits by their refs, as the server has them now."""
        raise NotImplementedError

    def read(self, rev: str, path: str) -> bytes | None:
        """A file of a commit; None where it has none."""
        raise NotImplementedError

    def listing(self, rev: str, path: str) -> dict[str, str]:
        """Blobs of the files at or below a path, by their paths from the root."""
        raise NotImplementedError

    def parents(self, rev: str) -> tuple[str, ...]:
        raise NotImplementedError

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
        raise NotImplementedError

    def create(self, refs: Mapping[str, str]) -> dict[str, bool]:
        """Pushes refs that must not be there yet; False for one that was there with another content."""
        raise NotImplementedError

    def forward(self, branch: str, old: str, new: str) -> bool:
        """Moves a branch, only if it is still where it was."""
        raise NotImplementedError

    def delete(self, refs: Iterable[str]) -> None:
        """Those that are there."""
        raise NotImplementedError
