"""A point is a whole set of parameters: two sweeps that ask for the same one share its experiment."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lightvision import experiments, overriding
from lightvision.experiments import Row
from stages.core import params
from stages.core.running import pipeline
from stages.core.running.errors import Refusal
from stages.core.running.pipeline import Stage

PARAMS = Path("params.yaml")


@dataclass(frozen=True)
class Point:
    """`sets` are as in `dvc exp run -S`; `digest` is of the parameters that reach the wanted stages, and of nothing
    else."""

    row: str
    seed: int
    fold: int | None
    sets: tuple[str, ...]
    digest: str

    @property
    def key(self) -> str:
        """Points of two rows with the same key are a pair."""
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed}, fold {self.fold}"


def point(row: str, seed: int, fold: int | None, sets: Sequence[str], needed: Sequence[Stage]) -> Point:
    everything = (*sets, f"seed={seed}", *([] if fold is None else [f"prepare.fold={fold}"]))
    try:
        return Point(row, seed, fold, everything, digest(changed(everything), needed))
    except Refusal as refusal:
        raise Refusal(f"row {row!r}: {refusal}" if row else str(refusal)) from refusal


def changed(sets: Sequence[str]) -> Mapping[str, Any]:
    """The parameters that DVC would give to such an experiment, checked before anything runs."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PARAMS.name
        try:
            copy.write_text(text(sets), encoding="utf-8")
            params.load(copy)
        except Refusal as refusal:
            raise Refusal(str(refusal).replace(f"{copy}: ", "")) from refusal
        return YAML(typ="safe").load(copy)


def text(sets: Sequence[str]) -> str:
    """params.yaml as DVC would write it for such an experiment."""
    if not PARAMS.is_file():
        raise Refusal(f"{PARAMS} is not there: run it from the project's folder")
    return overriding.text(PARAMS.read_text(encoding="utf-8"), tuple(sets))


def digest(content: Mapping[str, Any], needed: Sequence[Stage]) -> str:
    entries = sorted({entry for stage in needed for entry in stage.params})
    text = json.dumps([sorted(stage.name for stage in needed), {e: content.get(e) for e in entries}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def needed(targets: Iterable[str]) -> list[Stage]:
    """The targets and all that they depend on."""
    stages = pipeline.read()
    if not stages:
        raise Refusal("dvc.yaml is not there: run it from the project's folder")
    if unknown := [name for name in targets if name not in stages]:
        raise Refusal(f"dvc.yaml has no stage {unknown[0]}; it has {', '.join(stages)}")
    names = {stage.name for target in targets for stage in (stages[target], *pipeline.upstream(target, stages))}
    return [stage for name, stage in stages.items() if name in names]


def there(needed: Sequence[Stage]) -> dict[str, Row]:
    """Finished experiments by what they are made of, made for whatever sweep."""
    found: dict[str, Row] = {}
    for row in experiments.ever(needed):
        found.setdefault(digest(row.params, needed), row)
    return found
