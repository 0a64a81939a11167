"""For any Linux with Python, on arm64 or x86."""

import shutil
from pathlib import Path

from lightvision.bundles import laying
from lightvision.bundles.winner import Winner


def make(winner: Winner, folder: Path) -> None:
    shutil.copy(winner.file, folder / "model.onnx")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in winner.classes), encoding="utf-8")
    laying.lay("rpi", winner, folder)
    laying.runner(folder)
    laying.checks(winner, folder)
