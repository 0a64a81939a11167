"""The pruned network becomes an integer network; its ranges come from the calibration pictures alone."""

import dataclasses

from torch import nn

from stages.core import batches, evaluation, machine, params, quantization, zeros
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.objectives import building
from stages.core.running import files
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.schooling import school
from stages.core.training import curves, loop
from stages.core.training.loop import History, Lesson, Summary


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
    model = artifact.load(pruned)
    calibrating = batches.on_device(storage.load(calibration), here.machine)
    before = evaluation.logits(here.machine.place(model.network), here.val)
    sparse = zeros.share(zeros.weights(model.network).values())
    integer = quantization.calibrate(
        model.network, quantize.method, [images for images, _ in batches.in_order(calibrating)]
    )
    histories: dict[str, History] = {}
    recovered = None
    parents = {"pruned": files.digest(pruned)}
    if quantize.recovery is not None:
        lesson = here.lesson(integer, quantize.recovery, quantize.training, seed)
        lesson = dataclasses.replace(lesson, constraint=zeros.Held)
        histories["quantized"], recovered = learn_on(integer, lesson, run)
        parents |= {"teacher": files.digest(teacher)} if building.listens(quantize.recovery) else {}
    card = dataclasses.replace(model.card, quantization=quantize.method, parents=parents)
    quantization.save(quantized, integer.eval(), card)
    curves.write(history, histories)
    after = evaluation.logits(here.machine.place(quantization.load(quantized).network), here.val)
    levels = quantization.levels(integer)
    run.metrics(
        metrics,
        {
            "val_accuracy": evaluation.accuracy(after, here.val.labels),
            "val_accuracy_before": evaluation.accuracy(before, here.val.labels),
            "val_agreement": evaluation.accuracy(after, before.argmax(dim=1)),
            "calibration_pictures": len(calibrating),
            "integer_layers": len(levels),
            "most_levels_in_a_channel": max(levels.values()),
            "zeros_before": sparse,
            "zeros": zeros.share(zeros.weights(integer).values()),
            "zero_codes": quantization.zero_codes(integer),
            "recovery": recovered,
        },
    )


def learn_on(integer: nn.Module, lesson: Lesson, run: Run) -> tuple[History, Summary]:
    """Its roundings included, in place."""
    before = evaluation.accuracy(evaluation.logits(integer, lesson.val), lesson.val.labels)
    history = loop.fit(integer, lesson, run, "quantized")
    return history, loop.summary(history, lesson.settings.epochs) | {"val_accuracy_before_recovery": before}
