"""dvc.yaml, read without DVC."""

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.running import files, identity, sources

POOLS = GPU, CPU = ("gpu", "cpu")


@dataclass(frozen=True)
class Stage:
    """One stage as dvc.yaml tells it; git keeps some of its outs, and machines of a pool run it."""

    name: str
    cmd: str
    deps: frozenset[str]
    outs: frozenset[str]
    kept: frozenset[str]
    params: tuple[str, ...]
    pool: str

    @property
    def paths(self) -> dict[str, str]:
        """The paths in `cmd`, by the name of their option."""
        words = shlex.split(self.cmd)[4:]
        return {
            option.removeprefix("--").replace("-", "_"): path
            for option, path in zip(words[::2], words[1::2], strict=True)
        }

    @property
    def inputs(self) -> dict[str, Path]:
        return {name: Path(path) for name, path in self.paths.items() if path in self.deps}

    @property
    def outputs(self) -> dict[str, Path]:
        return {name: Path(path) for name, path in self.paths.items() if path in self.outs}


def read(path: Path = Path("dvc.yaml")) -> dict[str, Stage]:
    if not path.is_file():
        return {}
    return {name: stage(name, content) for name, content in YAML(typ="safe").load(path)["stages"].items()}


def upstream(name: str, stages: dict[str, Stage]) -> list[Stage]:
    """Every stage that `name` depends on, nearest first."""
    makers = {out: stage for stage in stages.values() for out in stage.outs}
    found: dict[str, Stage] = {}
    waiting = [stages[name]] if name in stages else []
    while waiting:
        for dep in sorted(waiting.pop(0).deps & makers.keys()):
            stage = makers[dep]
            if stage.name not in found:
                found[stage.name] = stage
                waiting.append(stage)
    return list(found.values())


def keys(stages: list[Stage], settings: Any) -> dict[str, str]:
    """The key each stage has, or had when it ran, with the files that are here now."""
    return {
        stage.name: identity.key(stage.name, stage.inputs, settings.pick(stage.params))
        for stage in stages
        if all(path.exists() for path in stage.inputs.values())
    }


def state(stages: dict[str, Stage]) -> str:
    """Equal for all the stages that one `dvc repro` runs, and different once code or parameters are."""
    total = hashlib.sha256()
    for path in (Path("params.yaml"), Path("dvc.yaml")):
        total.update(files.digest(path).encode() if path.is_file() else b"-")
    for name in sorted(stages):
        total.update(sources.digest(f"stages.{name}").encode())
    return total.hexdigest()


def stage(name: str, content: dict[str, Any]) -> Stage:
    listed = [out for kind in ("outs", "metrics", "plots") for out in content.get(kind, [])]
    outs = {path: told for out in listed for path, told in ({out: {}} if isinstance(out, str) else out).items()}
    return Stage(
        name=name,
        cmd=content["cmd"],
        deps=frozenset(content.get("deps", [])),
        outs=frozenset(outs),
        kept=frozenset(path for path, told in outs.items() if told.get("cache") is False),
        params=tuple(content.get("params", [])),
        pool=content.get("meta", {}).get("pool", GPU),
    )
