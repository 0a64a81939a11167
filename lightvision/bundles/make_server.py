"""An HTTP service and its container."""

import shutil
from pathlib import Path

from lightvision.bundles import laying
from lightvision.bundles.winner import Winner


def make(winner: Winner, folder: Path) -> None:
    shutil.copy(winner.file, folder / "model.onnx")
    laying.lay("server", winner, folder)
    laying.runner(folder)
    laying.checks(winner, folder)
