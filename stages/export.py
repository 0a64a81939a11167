"""Every network as one ONNX file, proved on val against the network it was made from."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core import batches, counting, evaluation, hardware, loading, machine, params
from stages.core.datasets import storage
from stages.core.machine import Machine
from stages.core.networks import artifact
from stages.core.networks.artifact import Card, Model
from stages.core.running import files
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.shipping import gate, packing, portable, running, writing

FLOAT, CHAMPION = "pruned", "quantized"
PORTABLE = "quantized-portable"  # for processors that add pairs of products in 16 bits


def main(
    run: Run,
    export: params.Export,
    compute: params.Compute,
    seed: int,
    val: Input,
    teacher: Input,
    student: Input,
    pruned: Input,
    quantized: Input,
    shipped: Output,
    metrics: Output,
) -> None:
    proving = Proving(export, val, machine.choose(compute, seed), shipped)
    shipped.mkdir()
    results: dict[str, dict[str, Any]] = {}
    for name, folder in {"teacher": teacher, "student": student, FLOAT: pruned}.items():
        results[name] = proving.ship(name, folder, size(folder))
    results[CHAMPION] = proving.fewer_bits(CHAMPION, quantized, size(pruned), results[FLOAT])
    if results[CHAMPION]["has_twin"]:
        results[PORTABLE] = proving.fewer_bits(PORTABLE, quantized, size(pruned), results[FLOAT])
    run.metrics(metrics, results)
    best = results[CHAMPION]
    run.register(
        artifact="shipped",
        file=f"{CHAMPION}.onnx",
        model="lightvision-" + re.sub(r"[^\w-]+", "-", proving.split.facts.dataset),
        gates=export.model_dump(mode="json"),
        accuracy=best["accuracy"],
        judged_on=files.digest(val),
        bytes=best["bytes"],
    )


class Proving:
    """The network on its own machine, the file in ONNX Runtime, the same pictures."""

    def __init__(self, limits: params.Export, val: Path, here: Machine, shipped: Path) -> None:
        self.limits, self.here, self.shipped = limits, here, shipped
        self.split = storage.load(val)
        self._pictures = batches.on_device(self.split, here)

    def ship(self, name: str, folder: Path, facts: Mapping[str, str]) -> dict[str, Any]:
        path, told = self.shipped / f"{name}.onnx", {"model": files.digest(folder), **facts}
        writing.write(_read(name, folder), path, self.limits.opset, told)
        network = self.here.place(_read(name, folder).network)
        answers = evaluation.logits(network, self._pictures).cpu().numpy()
        answered = running.logits(path, self.split.images, len(batches.parts_in_order(self._pictures)))
        found = gate.compare(answers, answered, self.split.labels, self.limits.confidence)
        gate.parity(name, found, self.limits, _reason(path))
        return contents(path) | dataclasses.asdict(found) | running.kernels(path)

    def fewer_bits(
        self, name: str, folder: Path, facts: Mapping[str, str], before: Mapping[str, Any]
    ) -> dict[str, Any]:
        """With what such a file must be besides: small, accurate, and of integers where it is said to be."""
        found = self.ship(name, folder, facts)
        gate.accuracy(name, found, before, self.limits)
        gate.packing(name, found, self.limits)
        card, path = artifact.read_card(folder), self.shipped / f"{name}.onnx"
        used = running.operators(path)
        found |= {"operators": dataclasses.asdict(used), "saturates": portable.saturates(path), "has_twin": False}
        if isinstance(card.quantization, params.DynamicInt8):
            gate.dynamic(name, used.integer["products"], len(card.bits))
        if isinstance(card.quantization, params.Integer):
            found |= self._integers(name, folder, card, found, before)
            found["has_twin"] = name == CHAMPION and found["saturates"] > 0
        return found

    def _integers(
        self, name: str, folder: Path, card: Card, found: Mapping[str, Any], before: Mapping[str, Any]
    ) -> dict[str, int]:
        """Every code, as it was found, and nothing but integers where nothing else was asked for."""
        from stages.core.quantized import integers

        network = _read(name, folder).network
        gate.integer(name, found, before, len(integers.kept(network)), self.limits)
        stored = {layer: codes.numpy() for layer, codes in integers.all_codes(network).items()}
        return {"levels": gate.codes(name, self.shipped / f"{name}.onnx", stored, card.bits)}


def _read(name: str, folder: Path) -> Model:
    """Anew each time, since what is exported is changed by it."""
    model = loading.load(folder)
    if name == PORTABLE:
        from stages.core.quantized import integers

        integers.change(model.network, portable.narrow)
    return model


def _reason(path: Path) -> str:
    """Why a file may answer otherwise on this very processor."""
    if hardware.integer_products() == "exact" or not portable.saturates(path):
        return ""
    return (
        ". This processor adds products in pairs of 16 bits, where those of 8-bit weights saturate: weights and "
        "ends of quantize.method at 7 bits at most are exact everywhere"
    )


def contents(path: Path) -> dict[str, float | int]:
    """Of the numbers of the weights, `zeros` is the share that is none, `packed` how many weights leave theirs out."""
    return {
        "bytes": path.stat().st_size,
        "ideal_bytes": packing.ideal(path),
        "tensor_bytes": running.tensor_bytes(path),
        "zeros": running.zeros(path),
        "packed": packing.packed(path),
    }


def size(folder: Path) -> dict[str, str]:
    """Counted in floating point: fewer bits change neither number, but hide the layers from the counter."""
    model = loading.load(folder)
    macs = counting.multiply_accumulates(model.network, model.card.facts.image_size)
    return {"parameters": str(counting.parameters(model.network)), "macs": str(macs)}
