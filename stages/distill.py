"""A small network learns from the teacher; its twin, same start and same lessons, learns from the labels alone."""

import torch

from stages.core import batches, counting, machine, params, weights
from stages.core.datasets import storage
from stages.core.networks import artifact
from stages.core.running import journal
from stages.core.running.command import Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import curves, loop, objectives

LABELS_ALONE = params.CrossEntropy(name="cross_entropy", smoothing=0.0)


def main(
    run: Run,
    distill: params.Distill,
    augment: params.Augment,
    compute: params.Compute,
    seed: int,
    train: Input,
    val: Input,
    teacher: Input,
    student: Output,
    control: Output,
    metrics: Output,
    history: Output,
) -> None:
    here = machine.choose(compute, seed)
    learning, choosing = storage.load(train), storage.load(val)
    guide = artifact.load(teacher)
    if guide.card.facts.classes != learning.facts.classes:
        raise Refusal(f"{teacher} knows other classes than {train}: `dvc repro train_teacher` trains it on these")
    lessons = {"student": (student, distill.method), "control": (control, LABELS_ALONE)}
    pictures = batches.on_device(learning, here), batches.on_device(choosing, here)
    records: dict[str, loop.History] = {}
    summaries: dict[str, dict[str, float | int | bool]] = {}
    for name, (folder, method) in lessons.items():
        torch.manual_seed(seed)
        begun = weights.start(distill.student, distill.weights, learning.facts, journal.home())
        objective = objectives.build(method, here.place(guide.network))
        lesson = loop.Lesson(*pictures, objective, distill.training, augment, here, seed)
        records[name] = loop.fit(begun.network, lesson, run, name)
        artifact.save_float(folder, begun.network, distill.student, learning.facts, begun.origin, teacher=teacher)
        summaries[name] = loop.summary(records[name], distill.training.epochs)
    curves.write(history, records)
    run.metrics(
        metrics,
        summaries
        | {
            "gain_on_val": summaries["student"]["val_accuracy"] - summaries["control"]["val_accuracy"],
            "parameters": counting.parameters(artifact.load(student).network),
            "macs": counting.multiply_accumulates(artifact.load(student).network, learning.facts.image_size),
        },
    )
