"""The student loses channels, physically, and recovers what it can by learning on."""

from stages.core import batches, counting, evaluation, machine, params, pruning, recalibration
from stages.core.datasets import storage
from stages.core.networks import artifact, widths
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.training import curves, loop, objectives


def main(
    run: Run,
    prune: params.Prune,
    augment: params.Augment,
    compute: params.Compute,
    seed: int,
    train: Input,
    val: Input,
    teacher: Input,
    student: Input,
    pruned: Output,
    metrics: Output,
    history: Output,
) -> None:
    here = machine.choose(compute, seed)
    dense, guide = artifact.load(student), artifact.load(teacher)
    size = dense.card.facts.image_size
    learning, choosing = (batches.on_device(storage.load(split), here) for split in (train, val))
    before = widths.outputs(dense.network)
    network = here.place(pruning.shrink(dense.network, prune, size, seed))
    recalibration.batch_norm(network, learning)
    unrecovered = evaluation.accuracy(evaluation.logits(network, choosing), choosing.labels)
    objective = objectives.build(prune.recovery, here.place(guide.network))
    record = loop.fit(
        network, loop.Lesson(learning, choosing, objective, prune.training, augment, here, seed), run, "pruned"
    )
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
