"""A workspace that was exported and measured: a file with its twin, a larger one, and val pictures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from lightvision import revisions
from lightvision.runs import SHIPPED, Run
from stages.core.datasets import storage
from stages.core.datasets.storage import Facts, Roll
from stages.core.running.sources import ROOT
from tests import made_files

PICTURES = 40
FACTS = Facts("colours", made_files.CLASSES, made_files.SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "crop")
TOLD = {"dataset": FACTS.dataset, "mean": json.dumps(FACTS.mean), "std": json.dumps(FACTS.std), "model": "0" * 64}
ACCURACY = {"teacher": 1.0, "quantized": 0.95, "quantized-portable": 0.95}


def enter(folder: Path, patch: pytest.MonkeyPatch, products: str = "exact") -> None:
    """`products` are those of the machine that measured it."""
    patch.chdir(folder)
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(PICTURES, FACTS.image_size, FACTS.image_size, 3), dtype=np.uint8)
    labels = images.mean(axis=(1, 2)).argmax(axis=1)
    names = [str(number) for number in range(PICTURES)]
    storage.write(Path("data/val"), images, labels, FACTS, Roll(names, names, {}))
    Path(SHIPPED).mkdir(parents=True)
    for name in ACCURACY:
        padding = {"padding": "x" * 50_000} if name == "teacher" else {}
        made_files.write(Path(SHIPPED) / f"{name}.onnx", TOLD | padding | {"note": name.rjust(20)})
    settings = YAML(typ="safe").load(ROOT / "params.yaml")
    settings["report"]["budget"] |= {"drop": 0.1}
    YAML().dump(settings, Path("params.yaml"))
    run = Run("workspace", {}, _metrics(products), {}, lambda path, _: Path(path), lambda path: path)
    patch.setattr(revisions, "of_workspace", lambda: run)


def _metrics(products: str) -> Mapping[str, Any]:
    bytes_of = {name: (Path(SHIPPED) / f"{name}.onnx").stat().st_size for name in ACCURACY}
    timed = {"macs": 1000, "joules": None, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95}
    files = {
        name: timed | {"bytes": bytes_of[name], "one_thread": {"median": milliseconds}}
        for name, milliseconds in zip(ACCURACY, (3.0, 1.0, 2.0), strict=True)
    }
    return {
        "export": {name: {"bytes": bytes_of[name], "accuracy": share} for name, share in ACCURACY.items()},
        "benchmark": {"machine": {"integer_products": products}, "pictures": 50, "files": files},
    }
