"""Converters live in environments of their own, built from a lock when one is asked for: complete, or not there."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from stages.core.converting import locks
from stages.core.running import files, progress
from stages.core.running.errors import Refusal

LONGEST = 400  # letters of a reason
LOCKS = Path(locks.__file__).parent


def home() -> Path:
    elsewhere = os.environ.get("LIGHTVISION_CONVERTERS")
    return Path(elsewhere) if elsewhere else Path.home() / ".cache" / "lightvision" / "converters"


def folder(name: str) -> Path:
    """Of the environment that the lock describes as it is now: another lock is another environment."""
    digest = hashlib.sha256(_lock(name).read_bytes()).hexdigest()[:12]
    return home() / f"{name}-{digest}"


def python(name: str) -> Path | None:
    found = _python(folder(name))
    return found if found.exists() else None


def build(name: str) -> Path:
    """Elsewhere first, then put in place by one rename, which no kill can halve; one process builds, others wait. What
    is there is used as it is, also where nobody may write."""
    if found := python(name):
        return found
    final = folder(name)
    try:
        home().mkdir(parents=True, exist_ok=True)
        with FileLock(home() / f"{final.name}.lock"):
            for left in home().glob(f"{final.name}.*.partial"):
                files.remove(left)
            if not _python(final).exists():
                files.remove(final)  # whose Python is gone from this machine
                _fill(name, final)
    except OSError as error:
        raise Refusal(f"the converter {name} cannot be built in {final}: {error.strerror or error}") from error
    return _python(final)


def bytes_on_disk(name: str) -> int:
    """Of files that uv links from its cache, too."""
    return sum(path.lstat().st_size for path in folder(name).rglob("*") if path.is_file())


def shortened(told: str) -> str:
    """What a person can act on stands at its end as often as at its beginning."""
    words = " ".join(told.split())
    if len(words) > LONGEST:
        words = f"{words[: LONGEST // 2]} ... {words[-LONGEST // 2 :]}"
    return words or "no reason was given"


def _fill(name: str, final: Path) -> None:
    progress.note(f"{name}: its converter is built, once, in {final}")
    partial = Path(tempfile.mkdtemp(prefix=f"{final.name}.", suffix=".partial", dir=home()))
    try:
        for command in _commands(partial, _lock(name)):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Refusal(f"the converter {name} cannot be built: {shortened(done.stderr)}")
        partial.chmod(0o755)  # a temporary folder is its owner's alone
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _commands(where: Path, lock: Path) -> list[list[str]]:
    """With uv, which links what its cache has; without it by pip, alike but slower. A lock names all that is needed,
    and leaves out what a package asks for and does not use."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    locked = ["--no-deps", "--require-hashes", "--requirement", str(lock)]
    if uv:
        return [
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(where)],
            [uv, "pip", "install", "--quiet", "--python", str(_python(where)), *locked],
        ]
    return [
        [sys.executable, "-m", "venv", "--clear", str(where)],
        [str(_python(where)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *locked],
    ]


def _lock(name: str) -> Path:
    path = LOCKS / f"{name}.lock"
    if not path.is_file():
        raise Refusal(f"there is no converter {name}: {path.parent} has {', '.join(names())}")
    return path


def names() -> list[str]:
    return sorted(path.stem for path in LOCKS.glob("*.lock"))


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"
