"""Where git and dvc.lock tell of something: the commit or experiment that made it first."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightvision import experiments, objects, revisions
from lightvision.experiments import FINISHED, Row
from lightvision.objects import FOLDER, Objects
from stages.core.running import pipeline
from stages.core.running.pipeline import Stage

OTHERS = ("refs/exps/exec/*", "refs/exps/celery/*", "refs/exps/stash", "refs/stash")  # DVC's and git's own


@dataclass(frozen=True)
class Record:
    """An output as dvc.lock of a commit has it, or of the workspace, whose `rev` is empty; `file` lies within it."""

    rev: str
    path: str
    file: str
    maker: str

    @property
    def experiment(self) -> revisions.Experiment | None:
        return next((one for one in revisions.known() if one.rev == self.rev), None)

    @property
    def lock(self) -> Mapping[str, Any]:
        return experiments.locked(self.rev)

    @property
    def stages(self) -> list[Stage]:
        """The maker and all that it depends on, as the commit's own dvc.yaml tells them."""
        known = dict(revisions.dag(self.rev))
        return [known[self.maker], *pipeline.upstream(self.maker, known)] if self.maker in known else []

    @property
    def outs(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """Each output of those stages with the stage that made it."""
        ran = {stage.name: self.lock.get(stage.name, {}) for stage in self.stages}
        return {out["path"]: (name, out) for name, entry in ran.items() for out in entry.get("outs", [])}

    def of_its_parameters(self) -> bool:
        row = Row(self.rev, self.rev, FINISHED, False, revisions.parameters(self.rev), {})
        return bool(self.stages) and experiments.is_current(row, self.stages)

    def of_its_code(self) -> list[str]:
        """Files and folders which the commit has otherwise than the stages read them."""
        made = self.outs
        deps = {
            dep["path"]: dep.get("md5")
            for stage in self.stages
            for dep in self.lock.get(stage.name, {}).get("deps", [])
            if dep["path"] not in made
        }
        return [path for path, md5 in deps.items() if md5 != objects.of_commit(self.rev, path)]


def first(md5: str, size: int, kept: Objects) -> Record | None:
    """The oldest whose parameters are the commit's own; one that was not committed comes last."""
    found = list(_holders(md5, size, kept))
    return next((one for one in found if one.of_its_parameters()), found[0] if found else None)


def at(rev: str, path: str, file: str, kept: Objects) -> Record | None:
    """One output of a commit, or a file of it."""
    for stage, ran in experiments.locked(rev).items():
        for out in ran.get("outs", []):
            if out["path"] == path:
                within = kept.listing(out["md5"]) or {}
                return Record(rev, path, file if file in within else "", stage)
    return None


def _holders(md5: str, size: int, kept: Objects) -> Iterator[Record]:
    for rev in [*_commits(), ""]:
        for stage, ran in experiments.locked(rev).items():
            for out in ran.get("outs", []):
                if out.get("md5") == md5:
                    yield Record(rev, out["path"], "", stage)
                elif str(out.get("md5")).endswith(FOLDER) and out.get("size", size) >= size:
                    listing = kept.listing(out["md5"]) or {}
                    yield from (Record(rev, out["path"], name, stage) for name, one in listing.items() if one == md5)


def _commits() -> Sequence[str]:
    """All that changed dvc.lock, experiments too, the oldest first."""
    words = [*(f"--exclude={ref}" for ref in OTHERS), "--all", "--full-history", "--reverse", "--format=%H"]
    done = subprocess.run(["git", "log", *words, "--", "dvc.lock"], capture_output=True, text=True)
    return done.stdout.split()
