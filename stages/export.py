"""Every network as one ONNX file, proved on val against the network it was made from."""

import dataclasses

from stages.core import batches, counting, evaluation, loading, machine, params
from stages.core.datasets import storage
from stages.core.networks.artifact import Card
from stages.core.running import files
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.shipping import gate, running, writing


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
    results: dict[str, dict[str, float | int | str]] = {}
    counts: dict[str, int] = {}
    for name, folder in {"teacher": teacher, "student": student, "pruned": pruned, "quantized": quantized}.items():
        model, path = loading.load(folder), shipped / f"{name}.onnx"
        if model.card.quantization is None:
            counts = count(model.network, model.card)
        answers = evaluation.logits(here.place(model.network), pictures).cpu().numpy()
        facts = {name: str(number) for name, number in counts.items()} | {"model": files.digest(folder)}
        writing.write(model, path, export.opset, facts)
        found = gate.compare(answers, running.logits(path, choosing.images), choosing.labels)
        gate.parity(name, found, export)
        results[name] = {"bytes": path.stat().st_size} | dataclasses.asdict(found) | running.kernels(path)
    sizes = shipped / "quantized.onnx", shipped / "pruned.onnx"
    gate.integer("quantized", running.kernels(sizes[0]), *(path.stat().st_size for path in sizes), export)
    run.metrics(metrics, results)


def count(network, card: Card) -> dict[str, int]:
    """Quantizing changes neither number; Brevitas' layers hide them from the counter."""
    size = card.facts.image_size
    return {"parameters": counting.parameters(network), "macs": counting.multiply_accumulates(network, size)}
