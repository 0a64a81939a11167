"""Every network as one ONNX file, proved on val against the network it was made from."""

import dataclasses
import re
from pathlib import Path

from stages.core import batches, counting, evaluation, loading, machine, params
from stages.core.batches import Pictures
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.machine import Machine
from stages.core.networks.artifact import Model
from stages.core.running import files
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.shipping import gate, packing, running, writing

CHAMPION = "quantized"


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
    here = machine.choose(compute, seed)
    choosing = storage.load(val)
    pictures = batches.on_device(choosing, here)
    shipped.mkdir()
    results: dict[str, dict[str, float | int]] = {}
    for name, folder in {"teacher": teacher, "student": student, "pruned": pruned, "quantized": quantized}.items():
        facts = {"model": files.digest(folder)} | size(pruned if name == "quantized" else folder)
        path = shipped / f"{name}.onnx"
        writing.write(loading.load(folder), path, export.opset, facts)
        found = prove(loading.load(folder), path, choosing, pictures, here)
        gate.parity(name, found, export)
        results[name] = contents(path) | dataclasses.asdict(found) | running.kernels(path)
    gate.integer("quantized", results["quantized"], results["pruned"], export)
    run.metrics(metrics, results)
    limits = export.model_dump(mode="json")
    best = results[CHAMPION]
    run.register(
        artifact="shipped",
        file=f"{CHAMPION}.onnx",
        model="lightvision-" + re.sub(r"[^\w-]+", "-", choosing.facts.dataset),
        gates=limits,
        accuracy=best["accuracy"],
        judged_on=files.digest(val),
        bytes=best["bytes"],
    )


def prove(model: Model, path: Path, split: Split, pictures: Pictures, here: Machine) -> gate.Parity:
    """The network on its own machine, the file in ONNX Runtime, the same pictures."""
    answers = evaluation.logits(here.place(model.network), pictures).cpu().numpy()
    return gate.compare(answers, running.logits(path, split.images), split.labels)


def contents(path: Path) -> dict[str, float | int]:
    """Of the numbers of the weights, `zeros` is the share that is none, `packed` how many weights leave theirs out."""
    return {
        "bytes": path.stat().st_size,
        "tensor_bytes": running.tensor_bytes(path),
        "zeros": running.zeros(path),
        "packed": packing.packed(path),
    }


def size(folder: Path) -> dict[str, str]:
    """Counted in floating point: quantizing changes neither number, but hides the layers from the counter."""
    model = loading.load(folder)
    macs = counting.multiply_accumulates(model.network, model.card.facts.image_size)
    return {"parameters": str(counting.parameters(model.network)), "macs": str(macs)}
