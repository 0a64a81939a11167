"""Exported and converted files beside what ONNX Runtime's own quantizer makes of the same network."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.table import Table

from stages.core import hardware
from stages.core.clocking import timing, turns
from stages.core.converting import asking, proving
from stages.core.converting.table import TARGETS
from stages.core.datasets import storage
from stages.core.running import progress
from stages.core.running.errors import Refusal
from stages.core.shipping import gate

MAKERS = {target.suffix: target.maker for target in TARGETS.values()}
TIMED = 100  # pictures, of which calls take one after the other
CONFIDENCE = 0.95


def named(paths: list[Path]) -> dict[str, Path]:
    for path in paths:
        if path.suffix not in MAKERS or not path.is_file():
            raise Refusal(f"{path} is no file of these: {', '.join(f'*{suffix}' for suffix in MAKERS)}")
    by_name = {path.stem: path for path in paths}
    if len(by_name) < len(paths):
        raise Refusal(f"two files have the same name: {', '.join(sorted(path.name for path in paths))}")
    return by_name


class Pictures(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._left: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        image = next(self._left, None)
        return None if image is None else {"images": np.ascontiguousarray(image[None])}


def by_onnx_runtime(path: Path, images: np.ndarray, to: Path) -> Path:
    """As its documentation advises for such processors: uint8 between layers, int8 weights with a scale per channel."""
    prepared = to.with_name("prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    settings = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    logging.getLogger().setLevel(logging.ERROR)  # that it warns of biases, which have no second axis
    quantize_static(prepared, to, Pictures(images), **settings)
    return to


def compare(
    wanted: Mapping[str, Path], reference: str, split: storage.Split, rounds: int, scratch: Path
) -> dict[str, Any]:
    """Accuracy drops are against `reference`, and so are the times that a file is faster."""
    stored, few = scratch / "judging.npy", scratch / "timed.npy"
    np.save(stored, split.images)
    np.save(few, split.images[:TIMED])
    answers = {name: asking.answers(MAKERS[path.suffix], path, stored)[0] for name, path in wanted.items()}
    taken: dict[str, list[list[float]]] = {name: [] for name in wanted}
    for order in progress.track(turns.orders(list(wanted), rounds), "rounds", rounds):
        for name in order:
            path = wanted[name]
            taken[name].append(asking.answers(MAKERS[path.suffix], path, few, timed=True)[1])
    calls = {name: _rectangular(rows) for name, rows in taken.items()}
    return {
        "machine": hardware.describe(),
        "pictures": len(split),
        "rounds": rounds,
        "confidence": CONFIDENCE,
        "reference": reference,
        "files": {
            name: {
                "bytes": sum(part.stat().st_size for part in proving.written(path)),
                "runtime": asking.describe(MAKERS[path.suffix], path)["runtime"],
                **asdict(gate.compare(answers[reference], answers[name], split.labels, CONFIDENCE)),
                "milliseconds": timing.timing(calls[name], 1, CONFIDENCE),
                "times_faster": timing.times_faster(calls[name], calls[reference], CONFIDENCE),
            }
            for name, path in wanted.items()
        },
    }


def _rectangular(rows: list[list[float]]) -> np.ndarray:
    shortest = min(map(len, rows))
    return np.array([row[:shortest] for row in rows])


def table(found: dict[str, Any]) -> Table:
    shown = Table(title=f"{found['pictures']:,} pictures, {found['rounds']} rounds, one picture, one thread")
    for column in ("file", "bytes", "accuracy", "milliseconds", f"times {found['reference']}"):
        shown.add_column(column, justify="left" if column == "file" else "right", no_wrap=column == "file")
    for name, row in found["files"].items():
        took, (faster, low, high) = row["milliseconds"], row["times_faster"]
        shown.add_row(
            name,
            f"{row['bytes']:,}",
            f"{row['accuracy']:.2%}",
            f"{took['median']:.3f} [{took['low']:.3f}, {took['high']:.3f}]",
            f"{faster:.2f} [{low:.2f}, {high:.2f}]",
        )
    return shown
