"""Where a page comes from, and how it is built again.

Results are committed after the page that tells of them: it can name neither its own commit nor the digest of a
dvc.lock that holds its own. It names the last commit that touched what results are made from, and what dvc.lock says of
the stages before it. Both stay as they are when results, or documents, are committed.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.running import pipeline

SHORT, SHOWN = 12, 6
SETTINGS = ("dvc.yaml", "params.yaml")


@dataclass(frozen=True)
class Origin:
    """`commit` is empty outside git, `changed` are files that differ from it. `lock` is a digest of dvc.lock without
    the page, `data` one of what the first stage made, `results` how dvc.lock knows these very results; each is empty
    where it does not.
    """

    commit: str = ""
    changed: tuple[str, ...] = ()
    lock: str = ""
    data: str = ""
    results: str = ""

    @property
    def code(self) -> str:
        if not self.commit:
            return "No commit holds the code and parameters that made this page."
        if not self.changed:
            return "Code and parameters are those of this commit, the last one that touched them."
        more = len(self.changed) - SHOWN
        others = f" and {more} more" if more > 0 else ""
        return f"A changed tree made this page: this commit lacks changes of {', '.join(self.changed[:SHOWN])}{others}."

    @property
    def locked(self) -> str:
        if self.results:
            return "dvc.lock knows these very results."
        return "dvc.lock does not know these results: stages were run by hand, not by dvc repro."

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each with what it brings."""
        told: list[tuple[str, str]] = []
        if self.commit:
            caution = "; without the changes above" if self.changed else ""
            told.append((f"git checkout {self.commit[:SHORT]} && dvc repro", f"computed anew{caution}"))
        if self.results:
            found = f"git log --format=%H -S {self.results} -- dvc.lock | tail -n 1"
            told.append((f'git checkout "$({found})" && dvc checkout', "these very files, once they are committed"))
        return told


def find(stage: str, results: Path) -> Origin:
    """Of all that leads to `stage`, as dvc.yaml tells; `results` are a file that no second run would write alike."""
    stages = pipeline.read()
    if stage not in stages:
        return Origin()
    before = pipeline.upstream(stage, stages)
    made = {out for one in stages.values() for out in one.outs}
    needed = {dep for one in (stages[stage], *before) for dep in one.deps}
    paths = [path for path in sorted(needed - made) if not Path(path).is_absolute()]
    commit = _git("log", "-1", "--format=%H", "--", *paths, *SETTINGS)
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", *paths, *SETTINGS)
    lock = _lock(one.name for one in before)
    outs = {out["path"]: out["md5"] for one in lock.values() for out in one.get("outs", [])}
    known = outs.get(results.as_posix(), "")
    first = [out for one in before if not one.deps & made for out in lock.get(one.name, {}).get("outs", [])]
    return Origin(
        commit,
        tuple(line[3:] for line in changed.splitlines()) if commit else (),
        _digest(lock) if lock else "",
        _digest(first) if first else "",
        known if known == _md5(results) else "",
    )


def _lock(names: Iterable[str]) -> Mapping[str, Any]:
    path = Path("dvc.lock")
    found = YAML(typ="safe").load(path)["stages"] if path.is_file() else {}
    return {name: found[name] for name in sorted(names) if name in found}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _md5(path: Path) -> str:
    """As DVC counts."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _git(*words: str) -> str:
    """Empty where there is no git."""
    if shutil.which("git") is None:
        return ""
    found = subprocess.run(["git", "--no-optional-locks", *words], capture_output=True, text=True)
    return found.stdout.rstrip("\n")
