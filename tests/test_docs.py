"""What the documents tell to type is understood: each `dvc exp run -S` gives valid parameters, of a sweep both ends."""

import itertools
import shlex
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

from stages.core import params
from stages.core.running.sources import ROOT

RUN = "    dvc exp run "
COMMANDS = [
    pytest.param(shlex.split(line, comments=True)[3:], id=f"{path.name}: {line.strip()}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    if line.startswith(RUN)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_give_valid_parameters(words: list[str], tmp_path: Path) -> None:
    settings = [value for flag, value in itertools.pairwise(words) if flag == "-S"]
    assert settings
    path = tmp_path / "params.yaml"
    combinations = get_hydra_sweeps({"params.yaml": settings})
    for combination in (combinations[0], *combinations[1:][-1:]):
        shutil.copy(ROOT / "params.yaml", path)
        apply_overrides(path, combination["params.yaml"])
        params.load(path)
