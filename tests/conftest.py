"""A small world that all tests share: pictures of three classes, and settings that learn them in seconds."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stages import advise, prepare, train_teacher
from stages.core import batches, machine, params
from stages.core.datasets import storage
from stages.core.objectives import building
from stages.core.running import sources
from stages.core.running.journal import Run
from stages.core.training.loop import Lesson

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of small sums wait for each other more than they add

CLASSES = ("bars", "blobs", "checks")
SIZE = 8


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test starts a process that talks to MLflow, unless it asks for one."""
    monkeypatch.setenv("LIGHTVISION_TRACKING", "off")


@pytest.fixture(scope="session")
def settings() -> params.Params:
    """The defaults, with everything that takes time made small."""
    defaults = params.load(sources.ROOT / "params.yaml").model_dump(mode="json")
    small = {"name": "residual_cnn", "blocks": 2, "hidden_layers": 1}
    defaults["compute"] |= {"device": "cpu", "threads": 1}
    defaults["prepare"] |= {"image_size": SIZE, "calibration_images": 32}
    defaults["train_teacher"]["network"] = small
    defaults["distill"]["student"] = small
    for section in ("train_teacher", "distill", "prune", "quantize"):
        defaults[section]["training"] |= {"epochs": 3, "patience": 3, "batch_size": 16}
    defaults["prune"] |= {"seeds": 1, "scan": []}
    defaults["quantize"]["method"] |= {"weights": 8}
    defaults["quantize"] |= {"recovery": None, "controls": False, "seeds": 1, "scan_beyond": 0.99}
    defaults["export"] |= {"min_agreement": 0.9, "max_accuracy_drop": 0.1, "max_int8_size": 0.999}
    defaults["export"] |= {"max_quantized_drop": 0.2, "max_over_ideal": 3.0}
    for kind in ("floating", "integer"):
        defaults["convert"][kind] |= {"min_agreement": 0.8, "max_accuracy_drop": 0.2}
    defaults["evaluate"] |= {"robustness": {"noise": [0.5], "contrast": [0.5], "blur": [0.1], "jpeg": []}}
    defaults["evaluate"] |= {"examples": 6, "attention": 3}
    defaults["benchmark"] |= {"rounds": 3, "seconds_per_file": 0.05, "batches": [2]}
    return params.Params.model_validate(defaults)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: 40 pictures of each class, as PNG."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(40):
            Image.fromarray(draw(label, generator)).save(root / name / f"{number:02}.png")
    return root


def draw(label: int, generator: np.random.Generator) -> np.ndarray:
    """12 x 12 with noise: upright bars, a bright middle, or a checkerboard, in any colour."""
    rows, columns = np.mgrid[:12, :12]
    shift = generator.integers(3)
    pattern = (
        (columns + shift) % 4 < 2,
        (rows - 5.5) ** 2 + (columns - 5.5) ** 2 < 16 + 4 * shift,
        ((rows + shift) // 2 + columns // 2) % 2 == 0,
    )[label]
    colour = generator.uniform(100, 255, 3)
    return np.clip(pattern[..., None] * colour + generator.normal(0, 12, (12, 12, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def prepared(settings: params.Params, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train, calibration, val and test of those pictures."""
    folder = tmp_path_factory.mktemp("prepared")
    source = params.Own(name="folder", path=str(pictures))
    prepare.main(
        run=Run(folder / "run"),
        prepare=settings.prepare.model_copy(update={"source": source}),
        seed=0,
        **{name: folder / name for name in ("train", "calibration", "val", "test")},
        manifest=folder / "manifest.csv",
        details=folder / "details.json",
        metrics=folder / "prepare.json",
    )
    return folder


@pytest.fixture(scope="session")
def taught(prepared: Path, settings: params.Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, and no views."""
    folder = tmp_path_factory.mktemp("taught")
    shared: dict[str, Any] = {"augment": settings.augment, "compute": settings.compute, "seed": 0}
    train_teacher.main(
        run=Run(folder / "run"),
        train_teacher=settings.train_teacher,
        train=prepared / "train",
        val=prepared / "val",
        teacher=folder / "teacher",
        metrics=folder / "teacher.json",
        history=folder / "teacher.csv",
        **shared,
    )
    advise.main(
        run=Run(folder / "run-2"),
        advise=settings.advise,
        train=prepared / "train",
        teacher=folder / "teacher",
        advice=folder / "advice",
        metrics=folder / "advise.json",
        **shared,
    )
    torch.use_deterministic_algorithms(mode=False)
    return folder


@pytest.fixture
def lesson(settings: params.Params, prepared: Path) -> Iterator[Lesson]:
    """Those pictures and settings, from labels alone."""
    here = machine.choose(settings.compute, 0)
    train, val = (batches.on_device(storage.load(prepared / name), here) for name in ("train", "val"))
    objective = building.labels_alone()
    yield Lesson(train, val, objective, settings.train_teacher.training, settings.augment, here, seed=0)
    torch.use_deterministic_algorithms(mode=False)
