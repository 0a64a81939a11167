"""What a maker is given: a folder of files that need none of this project's code to be read."""

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stages.core import plain
from stages.core.converting.asking import Unable
from stages.core.converting.makers.protocol import Handed
from stages.core.datasets import storage
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact
from stages.core.running import files
from stages.core.shipping import running


@dataclass(frozen=True)
class Sources:
    """Artifacts and splits that files are made from."""

    pruned: Path
    shipped: Path
    calibration: Path

    @property
    def float_file(self) -> Path:
        return self.shipped / "pruned.onnx"

    @property
    def packed_file(self) -> Path:
        return self.shipped / "quantized.onnx"


class FromPixels(nn.Module):
    """Pixel values in, as they are stored; normalisation is one multiplication and one addition."""

    def __init__(self, network: nn.Module, facts: Facts) -> None:
        super().__init__()
        mean, std = (torch.tensor(numbers, dtype=torch.float64).view(1, 3, 1, 1) for numbers in (facts.mean, facts.std))
        self.network = network
        self.scale = nn.Buffer((1 / (255 * std)).float())
        self.shift = nn.Buffer((-mean / std).float())

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift)


class Handing:
    """Facts at once, and each piece once it is needed, so that what cannot be written stops only who needs it."""

    def __init__(self, folder: Path, sources: Sources) -> None:
        self.handed, self.sources = Handed(folder), sources
        self._there: set[str] = set()
        facts = storage.load(sources.calibration).facts
        told = {name: getattr(facts, name) for name in ("classes", "image_size", "fit", "mean", "std")}
        files.write_json(folder / "handed.json", told)

    def with_pieces(self, names: Iterable[str]) -> Handed:
        for name in sorted(set(names) - self._there):
            PIECES[name](self.handed, self.sources)
            self._there.add(name)
        return self.handed


def _network(handed: Handed, sources: Sources) -> None:
    """One picture, already float32: what every compiler for small devices takes."""
    torch.export.save(_exported(sources.pruned, torch.float32, 1, None), handed.network)


def _program(handed: Handed, sources: Sources) -> None:
    batch = {"images": {0: Dim("batch", min=1, max=4096)}}
    torch.export.save(_exported(sources.pruned, torch.uint8, 2, batch), handed.program)


def _exported(folder: Path, pixels: torch.dtype, batch: int, dynamic: dict[str, Any] | None) -> ExportedProgram:
    model = artifact.load(folder)
    size = model.card.facts.image_size
    network = plain.unwrap(model.network.cpu().eval(), torch.zeros(2, 3, size, size))
    example = torch.zeros(batch, size, size, 3, dtype=pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes to its own developers
        try:
            return torch.export.export(
                FromPixels(network, model.card.facts).eval(), (example,), dynamic_shapes=dynamic, strict=False
            )
        except Exception as error:  # the exporter's errors have no base class in common but this
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise Unable(f"torch.export cannot follow {type(network).__name__}: {reason}") from error


def _onnx(handed: Handed, sources: Sources) -> None:
    _unpack(sources.float_file, handed.onnx)


def _integers(handed: Handed, sources: Sources) -> None:
    _unpack(sources.packed_file, handed.integers)


def _unpack(path: Path, to: Path) -> None:
    """Of plain ONNX operators alone: not every reader knows functions inside a file."""
    before, graph = onnx.load(path), running.folded(path)
    model = onnx.helper.make_model(
        graph,
        opset_imports=[entry for entry in before.opset_import if entry.domain == ""],
        ir_version=before.ir_version,
        producer_name=before.producer_name,
    )
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in before.metadata_props})
    onnx.checker.check_model(model)
    onnx.save(model, to)


def _shipped(handed: Handed, sources: Sources) -> None:
    shutil.copyfile(sources.float_file, handed.shipped)
    shutil.copyfile(sources.packed_file, handed.packed)


def _calibration(handed: Handed, sources: Sources) -> None:
    np.save(handed.folder / "calibration.npy", storage.load(sources.calibration).images)


PIECES: Mapping[str, Callable[[Handed, Sources], None]] = {
    "network": _network,
    "program": _program,
    "onnx": _onnx,
    "integers": _integers,
    "shipped": _shipped,
    "calibration": _calibration,
}
