"""The pruned network gets fewer bits; its ranges come from the calibration pictures alone."""

import dataclasses

from stages.core import batches, evaluation, loading, machine, params, zeros
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.objectives import building
from stages.core.quantizing import overlap
from stages.core.quantizing.course import Asked
from stages.core.quantizing.methods import METHODS
from stages.core.running import files
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.schooling import school
from stages.core.training import curves


def main(
    run: Run,
    quantize: params.Quantize,
    advise: params.Advise,
    augment: params.Augment,
    compute: params.Compute,
    seed: int,
    train: Input,
    calibration: Input,
    val: Input,
    teacher: Input,
    advice: Input,
    pruned: Input,
    quantized: Output,
    metrics: Output,
    history: Output,
) -> None:
    here = school.enter(train, val, teacher, advice, advise, augment, machine.choose(compute, seed))
    model, looked_at = artifact.load(pruned), storage.load(calibration)
    overlap.refuse_few(looked_at, quantize.training)
    overlap.refuse(looked_at, storage.load(val))
    images = [images for images, _ in batches.in_order(batches.on_device(looked_at, here.machine))]
    before = evaluation.logits(here.machine.place(model.network), here.val)
    sparse = zeros.share(zeros.weights(model.network).values())
    accuracy = evaluation.accuracy(before, here.val.labels)
    made = METHODS[quantize.method.name](Asked(quantize, model, images, here, seed, run, accuracy), quantize.method)
    parents = {"pruned": files.digest(pruned)}
    if quantize.recovery is not None and building.listens(quantize.recovery):
        parents |= {"teacher": files.digest(teacher)}
    made.save(quantized, dataclasses.replace(made.card, parents=parents))
    curves.write(history, made.histories)
    after = evaluation.logits(here.machine.place(loading.load(quantized).network), here.val)
    run.metrics(
        metrics,
        {
            "method": quantize.method.name,
            "val_accuracy": evaluation.accuracy(after, here.val.labels),
            "val_accuracy_before": accuracy,
            "val_agreement": evaluation.accuracy(after, before.argmax(dim=1)),
            "calibration_pictures": len(looked_at),
            "zeros_before": sparse,
            **made.facts,
        },
    )
