"""Zeros go the whole way: pruned, learnt on, quantized, learnt on again, shipped; and the files are small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from stages import export, prune, quantize
from stages.core import params
from stages.core.networks import artifact
from stages.core.running.journal import Run
from stages.core.shipping import running

pytestmark = pytest.mark.slow

SHARE = 0.9


@pytest.fixture(scope="module")
def made(prepared: Path, settings: params.Params, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher itself, without nine weights of ten; quantized as it is and learning on; shipped."""
    to = tmp_path_factory.mktemp("sparse")
    wanted = settings.model_dump(mode="json")
    wanted["prune"] |= {"sparsity": 0.0, "controls": False}
    wanted["prune"]["zeros"] |= {"share": SHARE}
    wanted["prune"]["training"] |= {"epochs": 1}
    wanted["quantize"]["training"] |= {"epochs": 2, "optimizer": {**OPTIMIZER, "rate": 1e-2}}
    (to / "teacher").symlink_to(taught / "teacher")
    (to / "advice").symlink_to(taught / "advice")
    shared: dict[str, Any] = {"augment": settings.augment, "compute": settings.compute, "seed": 0}
    shared |= {split: prepared / split for split in ("train", "calibration", "val")}
    shared |= {name: to / name for name in ("teacher", "advice")} | {"advise": settings.advise}
    prune.main(
        run=Run(to / "run-prune"),
        prune=params.Prune.model_validate(wanted["prune"]),
        student=taught / "teacher",
        pruned=to / "pruned",
        metrics=to / "prune.json",
        history=to / "prune.csv",
        scanned=to / "sensitivity.csv",
        **shared,
    )
    for name, recovery in (("quantized", None), ("learnt", {"name": "cross_entropy", "smoothing": 0.0})):
        quantize.main(
            run=Run(to / f"run-{name}"),
            quantize=params.Quantize.model_validate(wanted["quantize"] | {"recovery": recovery}),
            pruned=to / "pruned",
            quantized=to / name,
            metrics=to / f"{name}.json",
            history=to / f"{name}.csv",
            **shared,
        )
        export.main(
            run=Run(to / f"run-export-{name}"),
            export=settings.export,
            compute=settings.compute,
            seed=0,
            val=prepared / "val",
            teacher=taught / "teacher",
            student=taught / "teacher",
            pruned=to / "pruned",
            quantized=to / name,
            shipped=to / f"shipped-{name}",
            metrics=to / f"export-{name}.json",
        )
    torch.use_deterministic_algorithms(mode=False)
    return to


OPTIMIZER = {"name": "adamw", "weight_decay": 0.0}


def is_weight(name: str, value: torch.Tensor) -> bool:
    return name.endswith(".weight") and value.ndim > 1


def zeros(folder: Path) -> float:
    """Of the numbers on the disk."""
    weights = [value for name, value in artifact.read_weights(folder).items() if is_weight(name, value)]
    return sum(int((value == 0).sum()) for value in weights) / sum(value.numel() for value in weights)


@pytest.mark.parametrize("name", ["quantized", "learnt"])
def test_zeros_stay_through_quantization(made: Path, name: str) -> None:
    """Codes too small for their scale come on top."""
    found = json.loads((made / f"{name}.json").read_text())
    assert zeros(made / "pruned") == found["zeros_before"] == pytest.approx(SHARE, abs=0.001)
    assert found["zeros"] == pytest.approx(SHARE, abs=0.001)
    assert zeros(made / name) >= found["zeros"]
    pruned, codes = (artifact.read_weights(made / folder) for folder in ("pruned", name))
    for key in (key for key in pruned if is_weight(key, pruned[key])):
        assert (codes[key][pruned[key] == 0] == 0).all(), key


def test_learning_on_moved_the_others(made: Path) -> None:
    first, other = (artifact.read_weights(made / name) for name in ("quantized", "learnt"))
    assert any(not torch.equal(first[key], other[key]) for key in first if first[key].dtype == torch.int8)


@pytest.mark.parametrize("name", ["quantized", "learnt"])
def test_the_file_holds_a_mask_and_what_is_left(made: Path, name: str, prepared: Path) -> None:
    found = json.loads((made / f"export-{name}.json").read_text())
    assert found["pruned"]["zeros"] == pytest.approx(SHARE, abs=0.001)
    assert found["quantized"]["zeros"] == pytest.approx(zeros(made / name), abs=1e-9)
    assert found["student"]["zeros"] < 0.01
    assert found["pruned"]["packed"] > 0 < found["quantized"]["packed"]
    assert found["pruned"]["tensor_bytes"] == pytest.approx(found["student"]["tensor_bytes"], rel=0.001)
    stored = {}
    for file in ("student", "pruned", "quantized"):
        path = made / f"shipped-{name}" / f"{file}.onnx"
        assert path.stat().st_size == found[file]["bytes"]
        stored[file] = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    sizes = {file: sum(array.nbytes for array in arrays) for file, arrays in stored.items()}
    assert sizes["pruned"] < 0.2 * sizes["student"]
    assert sizes["quantized"] < 0.7 * sizes["pruned"]
    for file in ("pruned", "quantized"):
        assert max(np.mean(array == 0) for array in stored[file] if array.size > 200 and array.dtype != np.uint8) < 0.2
    kernels = running.kernels(made / f"shipped-{name}" / "quantized.onnx")
    assert kernels["float_kernels"] == 0 < kernels["integer_kernels"]
