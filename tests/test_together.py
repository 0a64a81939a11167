"""Several processes that train together end where one alone would, and only the first of them writes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import Tensor

from stages.core import params
from stages.core.running.sources import ROOT

pytestmark = pytest.mark.slow

# no norm of it looks at more than one picture: on CPUs the statistics of BatchNorm would be each process's own
NETWORK = {"name": "timm", "model": "vit_tiny_patch16_224", "options": {"patch_size": 4, "depth": 2}}
SGD = {"name": "sgd", "rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"  # else the host's name must have an address
TEACHER = ("models/teacher", "metrics.json", "curves.csv")


def train(folder: Path, prepared: Path, settings: params.Params, processes: int, **training: object) -> Path:
    content = settings.model_dump(mode="json")
    content["compute"] |= {"processes": processes}
    content["train_teacher"]["network"] = NETWORK
    content["train_teacher"]["training"] |= {
        "epochs": 2,
        "batch_size": 17,
        "patience": 2,
        "optimizer": SGD,
    } | training
    options = {"train": prepared / "train", "val": prepared / "val"}
    return run(
        folder, content, "train_teacher", options | dict(zip(("teacher", "metrics", "history"), TEACHER, strict=True))
    )


def run(folder: Path, content: dict[str, Any], stage: str, options: dict[str, Any]) -> Path:
    folder.mkdir()
    YAML().dump(content, folder / "params.yaml")
    (folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    found = subprocess.run(
        [sys.executable, "-m", "stages", stage, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK},
        capture_output=True,
        text=True,
    )
    (folder / "told").write_text(found.stdout + found.stderr)
    (folder / "status").write_text(str(found.returncode))
    return folder


def test_two_processes_take_the_steps_of_one(prepared: Path, settings: params.Params, tmp_path: Path) -> None:
    """72 pictures by 17: batches do not divide evenly, and the last has four."""
    one, two = (train(tmp_path / str(count), prepared, settings, count) for count in (1, 2))
    assert [(folder / "status").read_text() for folder in (one, two)] == ["0", "0"], (two / "told").read_text()
    curves = [(folder / TEACHER[2]).read_text().splitlines() for folder in (one, two)]
    assert len(curves[0]) == 3
    for alone, together in zip(*(lines[1:] for lines in curves), strict=True):
        numbers = [[float(value) for value in line.split(",")[1:]] for line in (alone, together)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-4)
    weights = [load_file(folder / TEACHER[0] / "weights.safetensors") for folder in (one, two)]
    start = load_file(train(tmp_path / "0", prepared, settings, 1, epochs=1) / TEACHER[0] / "weights.safetensors")
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=2e-4), name
    assert not torch.allclose(start["blocks.0.mlp.fc1.weight"], weights[0]["blocks.0.mlp.fc1.weight"], atol=2e-3)
    told = (two / "told").read_text()
    assert told.count("teacher: epoch 1/2") == 1
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())


def test_two_processes_teach_as_one(prepared: Path, settings: params.Params, tmp_path: Path) -> None:
    """A teacher beside each of them; adapters are shared too."""
    content = settings.model_dump(mode="json")
    pair = {"student": "blocks.0", "teacher": "blocks.1"}
    method = {"name": "fitnet", "layers": [pair], "weight": 10.0}
    content["distill"] |= {"student": NETWORK, "seeds": 1, "method": method}
    content["distill"]["training"] |= {"epochs": 2, "batch_size": 17, "patience": 2, "optimizer": SGD}
    taught = train(tmp_path / "taught", prepared, settings, 1) / "models/teacher"
    made = {"advice": "advice", "metrics": "metrics.json"}
    given = {"train": prepared / "train", "teacher": taught}
    run(tmp_path / "asked", content, "advise", given | made)
    given |= {"val": prepared / "val", "advice": tmp_path / "asked/advice"}
    made = {name: name for name in ("student", "control", "companions")} | {
        "metrics": "metrics.json",
        "history": "x.csv",
    }
    weights: list[dict[str, Tensor]] = []
    for count in (1, 2):
        content["compute"] |= {"processes": count}
        folder = run(tmp_path / str(count), content, "distill", given | made)
        assert (folder / "status").read_text() == "0", (folder / "told").read_text()
        weights.append(load_file(folder / "student/weights.safetensors"))
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=2e-4), name
    control = load_file(tmp_path / "2/control/weights.safetensors")
    assert not torch.allclose(control["blocks.0.mlp.fc1.weight"], weights[1]["blocks.0.mlp.fc1.weight"], atol=1e-3)


def test_a_loss_that_is_no_number_ends_all_of_them(prepared: Path, settings: params.Params, tmp_path: Path) -> None:
    wild = {"name": "sgd", "rate": 1e30, "momentum": 0.9, "weight_decay": 0.0}
    folder = train(tmp_path / "wild", prepared, settings, 2, optimizer=wild, clip_gradient=None)
    assert (folder / "status").read_text() != "0"
    assert "the loss is not finite from batch 2 of epoch 1" in (folder / "told").read_text()
    assert not (folder / TEACHER[0]).exists()
