"""What dvc.yaml must tell, and every way in which it can fail to."""

import ast
import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from stages.core import params
from stages.core.running import sources
from stages.core.running.command import Contract
from stages.core.running.pipeline import Stage

ROOT = sources.ROOT
JUDGES = {"evaluate", "benchmark"}
TEST_SPLIT = "data/test"


def problems(stages: Mapping[str, Stage], root: Path = ROOT) -> list[str]:
    """Empty when dvc.yaml tells the truth about the code."""
    found = list(_names(stages, root))
    for stage in stages.values():
        found += [f"{stage.name}: {problem}" for problem in _stage_problems(stage)]
    return found + list(_leaks(stages))


def _stage_problems(stage: Stage) -> Iterator[str]:
    contract = Contract.of(importlib.import_module(f"stages.{stage.name}").main)
    if not stage.cmd.startswith(f"python -m stages {stage.name} "):
        yield "cmd runs something else"
    if tuple(stage.paths) != (*contract.inputs, *contract.outputs):
        yield f"cmd has the options {tuple(stage.paths)}, main takes {(*contract.inputs, *contract.outputs)}"
    if set(stage.params) != set(contract.settings):
        yield f"params are {sorted(stage.params)}, main reads {sorted(contract.settings)}"
    code = {dep for dep in stage.deps if dep.startswith("stages/")}
    given = {stage.paths[name] for name in contract.inputs if name in stage.paths}
    made = {stage.paths[name] for name in contract.outputs if name in stage.paths}
    if stage.deps - code != given:
        yield f"deps and inputs differ in {sorted((stage.deps - code) ^ given)}"
    if stage.outs != made:
        yield f"outs and outputs differ in {sorted(stage.outs ^ made)}"
    yield from _code_problems(stage, code)


def _code_problems(stage: Stage, declared: set[str]) -> Iterator[str]:
    needed = {path.as_posix() for path in _needed(stage.name)}
    covered = {file for dep in declared for file in _files(dep)}
    yield from (f"{path} is imported but not a dep" for path in sorted(needed - covered))
    yield from (f"{path} is a dep but not imported" for path in sorted(covered - needed))
    yield from (f"{dep} is a dep but does not exist" for dep in sorted(declared) if not (ROOT / dep).exists())


@cache
def _needed(name: str) -> set[Path]:
    return sources.of(f"stages.{name}")


def _files(dep: str) -> set[str]:
    path = ROOT / dep
    if path.is_file():
        return {dep}
    files = (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(ROOT).as_posix() for file in files if file.stat().st_size}


def _names(stages: Mapping[str, Stage], root: Path) -> Iterator[str]:
    modules = {path.stem for path in (root / "stages").glob("*.py")} - {"__init__", "__main__"}
    if modules != set(stages):
        yield f"stages of dvc.yaml and modules of stages/ differ in {sorted(modules ^ set(stages))}"
    read = {name for stage in stages.values() for name in stage.params}
    if read != set(params.Params.model_fields):
        yield f"params.yaml and the params of all stages differ in {sorted(read ^ set(params.Params.model_fields))}"


def _leaks(stages: Mapping[str, Stage]) -> Iterator[str]:
    """The test split, or a folder that holds it, given to a stage that could choose by it."""
    for stage in stages.values():
        for dep in stage.deps:
            if (dep == TEST_SPLIT or TEST_SPLIT.startswith(f"{dep}/")) and stage.name not in JUDGES:
                yield f"{stage.name}: reads {dep}, and with it the test split"


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def strings(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
