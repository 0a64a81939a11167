"""The best network that can be had at any size: it teaches, and it is what the small ones are compared with."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from stages.core import batches, counting, machine, params, weights
from stages.core.datasets import storage
from stages.core.networks import artifact, families
from stages.core.objectives import building
from stages.core.running import journal
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.training import curves, loop


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
    lesson = loop.Lesson(
        train=batches.on_device(learning, here),
        val=batches.on_device(choosing, here),
        objective=building.labels_alone(train_teacher.objective.smoothing),
        settings=train_teacher.training,
        augment=augment,
        machine=here,
        seed=seed,
    )
    wanted = train_teacher.network
    members = wanted.members if isinstance(wanted, params.Ensemble) else (wanted,)
    taught: list[nn.Module] = []
    records: dict[str, loop.History] = {}
    summaries: dict[str, loop.Summary] = {}
    origins: dict[str, str] = {}
    for number, member in enumerate(members):
        name = "teacher" if len(members) == 1 else f"teacher-{number + 1}"
        torch.manual_seed(seed + number)
        begun = weights.start(member, train_teacher.weights, learning.facts, journal.home())
        records[name], summaries[name] = learn(begun, train_teacher, replace(lesson, seed=seed + number), run, name)
        taught.append(begun.network)
        origins |= {f"{name}.{key}" if len(members) > 1 else key: value for key, value in begun.origin.items()}
    network = taught[0] if len(members) == 1 else here.place(families.Ensemble(taught))
    artifact.save_float(teacher, network, wanted, learning.facts, origins)
    curves.write(history, records)
    found = summaries["teacher"] if len(members) == 1 else loop.untrained(network, lesson.val) | ensemble(summaries)
    run.metrics(
        metrics,
        found
        | {
            "parameters": counting.parameters(network),
            "macs": counting.multiply_accumulates(network, learning.facts.image_size),
        },
    )


def learn(
    begun: weights.Start, settings: params.TrainTeacher, lesson: loop.Lesson, run: Run, name: str
) -> tuple[loop.History, loop.Summary]:
    """All of the network, its last layer alone, or nothing."""
    if settings.learn == "nothing":
        weights.refuse_untrained(begun)
        network = lesson.machine.place(begun.network)
        return [], loop.untrained(network, lesson.val)
    if settings.learn == "head":
        weights.freeze(begun.network)
    record = loop.fit(begun.network, lesson, run, name)
    return record, loop.summary(record, settings.training.epochs)


def ensemble(members: dict[str, loop.Summary]) -> dict[str, Any]:
    """It has no epoch of its own: each member ended with its best."""
    longest = max(summary["epochs"] for summary in members.values())
    stopped = any(summary["stopped_early"] for summary in members.values())
    return {"epochs": longest, "stopped_early": stopped, "members": members}
