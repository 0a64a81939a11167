"""What one machine keeps for all the jobs it does: mirrors, DVC's cache, clones, checkpoints, locks."""

import fcntl
import hashlib
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

FOLDER = "LIGHTVISION_HOST_FOLDER"
MIN_FREE = "LIGHTVISION_MIN_FREE_GB"


@dataclass(frozen=True)
class Host:
    folder: Path

    @classmethod
    def here(cls) -> "Host":
        return cls(Path(os.environ.get(FOLDER) or "~/.cache/lightvision").expanduser().resolve())

    @property
    def name(self) -> str:
        return platform.node()

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def mirror(self, url: str) -> Path:
        return self.folder / "mirror" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"

    def lock(self, name: str) -> Path:
        """A file to be locked; never removed, since somebody may just be opening it."""
        path = self.folder / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def free(self) -> int:
        """Bytes that jobs may still write."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    def is_full(self) -> bool:
        return self.free() < float(os.environ.get(MIN_FREE) or 2) * 1e9


def take(path: Path) -> int | None:
    """The open, locked file, which stays locked while any process that inherited it lives; None if it is taken."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
