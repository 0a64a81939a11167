"""The pruned network becomes an integer network; its ranges come from the calibration pictures alone."""

import dataclasses

from stages.core import batches, evaluation, machine, params, quantization
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.running import files
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run


def main(
    run: Run,
    quantize: params.Quantize,
    compute: params.Compute,
    seed: int,
    calibration: Input,
    val: Input,
    pruned: Input,
    quantized: Output,
    metrics: Output,
) -> None:
    here = machine.choose(compute, seed)
    model = artifact.load(pruned)
    calibrating, choosing = (batches.on_device(storage.load(split), here) for split in (calibration, val))
    before = evaluation.logits(here.place(model.network), choosing)
    integer = quantization.calibrate(
        model.network, quantize.method, [images for images, _ in batches.in_order(calibrating)]
    )
    card = dataclasses.replace(model.card, quantization=quantize.method, parents={"pruned": files.digest(pruned)})
    quantization.save(quantized, integer, card)
    after = evaluation.logits(here.place(quantization.load(quantized).network), choosing)
    levels = quantization.levels(integer)
    run.metrics(
        metrics,
        {
            "val_accuracy": evaluation.accuracy(after, choosing.labels),
            "val_accuracy_before": evaluation.accuracy(before, choosing.labels),
            "val_agreement": evaluation.accuracy(after, before.argmax(dim=1)),
            "calibration_pictures": len(calibrating),
            "integer_layers": len(levels),
            "most_levels_in_a_channel": max(levels.values()),
        },
    )
