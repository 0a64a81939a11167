"""Learning curves as a table that `dvc plots` and the report read."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from stages.core.training.loop import CURVES, History


def write(path: Path, histories: Mapping[str, History]) -> None:
    rows = [{"network": name} | row for name, history in histories.items() for row in history]
    pd.DataFrame(rows, columns=["network", *CURVES]).to_csv(path, index=False)
