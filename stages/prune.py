"""The student loses channels, physically, and recovers what it can by learning on."""

from stages.core import counting, evaluation, machine, params, pruning, recalibration
from stages.core.networks import artifact, widths
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.schooling import school
from stages.core.training import curves, loop


def main(
    run: Run,
    prune: params.Prune,
    augment: params.Augment,
    compute: params.Compute,
    seed: int,
    train: Input,
    val: Input,
    teacher: Input,
    advice: Input,
    student: Input,
    pruned: Output,
    metrics: Output,
    history: Output,
) -> None:
    here = school.enter(train, val, teacher, advice, augment, machine.choose(compute, seed))
    dense = artifact.load(student)
    size = dense.card.facts.image_size
    before = widths.outputs(dense.network)
    network = here.machine.place(pruning.shrink(dense.network, prune, size, seed))
    recalibration.batch_norm(network, here.train)
    unrecovered = evaluation.accuracy(evaluation.logits(network, here.val), here.val.labels)
    record = loop.fit(network, here.lesson(network, prune.recovery, prune.training, seed), run, "pruned")
    artifact.save_float(pruned, network, dense.card.architecture, dense.card.facts, student=student, teacher=teacher)
    curves.write(history, {"pruned": record})
    kept = counting.parameters(network), counting.multiply_accumulates(network, size)
    had = counting.parameters(dense.network), counting.multiply_accumulates(dense.network, size)
    run.metrics(
        metrics,
        loop.summary(record, prune.training.epochs)
        | {
            "val_accuracy_before_recovery": unrecovered,
            "parameters": kept[0],
            "macs": kept[1],
            "parameters_removed": 1 - kept[0] / had[0],
            "macs_removed": 1 - kept[1] / had[1],
            "channels": pruning.kept_channels(before, widths.outputs(network)),
        },
    )
