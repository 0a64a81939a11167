"""For any Linux with Python, on arm64 or x86."""

import shutil
from pathlib import Path

from lightvision.bundles import laying
from lightvision.bundles.winner import Winner


def make(winner: Winner, folder: Path) -> None:
    shutil.copy(winner.file, folder / "model.onnx")
    laying.lay("rpi", winner, folder)
    laying.runner(folder)
