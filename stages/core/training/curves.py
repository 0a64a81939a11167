"""Learning curves as a table that `dvc plots` and the report read."""

from collections.abc import Mapping
from pathlib import Path

from stages.core import tables
from stages.core.training.loop import CURVES, History


def write(path: Path, histories: Mapping[str, History]) -> None:
    rows = ({"network": name} | row for name, history in histories.items() for row in history)
    tables.write(path, ["network", *CURVES], rows)
