"""The best network that can be had at any size: it teaches, and it is what the small ones are compared with."""

from stages.core import batches, counting, machine, params
from stages.core.datasets import storage
from stages.core.networks import artifact, families
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.training import curves, loop, objectives


def main(
    run: Run,
    train_teacher: params.TrainTeacher,
    augment: params.Augment,
    compute: params.Compute,
    seed: int,
    train: Input,
    val: Input,
    teacher: Output,
    metrics: Output,
    history: Output,
) -> None:
    here = machine.choose(compute, seed)
    learning, choosing = storage.load(train), storage.load(val)
    network = families.build(train_teacher.network, len(learning.facts.classes))
    lesson = loop.Lesson(
        train=batches.on_device(learning, here),
        val=batches.on_device(choosing, here),
        objective=objectives.build(train_teacher.objective, guide=None),
        settings=train_teacher.training,
        augment=augment,
        machine=here,
        seed=seed,
    )
    record = loop.fit(network, lesson, run, "teacher")
    artifact.save_float(teacher, network, train_teacher.network, learning.facts)
    curves.write(history, {"teacher": record})
    run.metrics(
        metrics,
        loop.summary(record, train_teacher.training.epochs)
        | {
            "parameters": counting.parameters(network),
            "macs": counting.multiply_accumulates(network, learning.facts.image_size),
        },
    )
