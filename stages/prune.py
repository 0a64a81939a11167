"""The student loses channels, physically, and recovers what it can by learning on."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stages.core import batches, counting, evaluation, machine, params, recalibration
from stages.core.batches import Pictures
from stages.core.datasets import storage
from stages.core.networks import artifact, widths
from stages.core.objectives import building
from stages.core.pruning import blocks, cutting, importances
from stages.core.pruning.cutting import Plan
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.schooling import school
from stages.core.schooling.school import School
from stages.core.training import curves, loop
from stages.core.training.loop import History


def main(
    run: Run,
    prune: params.Prune,
    advise: params.Advise,
    augment: params.Augment,
    compute: params.Compute,
    seed: int,
    train: Input,
    calibration: Input,
    val: Input,
    teacher: Input,
    advice: Input,
    student: Input,
    pruned: Output,
    metrics: Output,
    history: Output,
) -> None:
    here = school.enter(train, val, teacher, advice, advise, augment, machine.choose(compute, seed))
    dense = artifact.load(student)
    calibrating = batches.on_device(storage.load(calibration), here.machine)
    shallow, gone = blocks.without(
        here.machine.place(dense.network), prune.blocks, dense.card.facts.image_size, lambda one: loss(one, calibrating)
    )
    plan = cutting.plan(dense, shallow, prune, seed)
    network, steps, histories = narrow(shallow, plan, here, calibrating, run)
    parents = {"student": student} | ({"teacher": teacher} if building.listens(prune.recovery) else {})
    artifact.save_float(pruned, network, dense.card.architecture, dense.card.facts, {}, **parents)
    histories |= beside(dense, artifact.read_card(pruned), prune, here, seed, run) if prune.controls else {}
    curves.write(history, histories)
    size = dense.card.facts.image_size
    kept = counting.parameters(network), counting.multiply_accumulates(network, size)
    had = counting.parameters(dense.network), counting.multiply_accumulates(dense.network, size)
    run.metrics(
        metrics,
        loop.summary(histories["pruned"], prune.training.epochs)
        | {
            "val_accuracy_before_recovery": steps[str(prune.steps)]["val_accuracy"],
            "parameters": kept[0],
            "macs": kept[1],
            "parameters_removed": 1 - kept[0] / had[0],
            "macs_removed": 1 - kept[1] / had[1],
            "of": prune.of,
            "blocks": {name: number for number, name in enumerate(gone, start=1)},
            "controls": controls(histories, prune.training.epochs) if prune.controls else None,
            "steps": steps,
            "channels": cutting.kept_channels(widths.outputs(dense.network), widths.outputs(network)),
        },
    )


def beside(
    dense: artifact.Model, card: artifact.Card, prune: params.Prune, here: School, seed: int, run: Run
) -> dict[str, History]:
    """The same lessons for the network that lost nothing, and for the narrow one that never knew anything."""
    torch.manual_seed(seed)
    networks = {"uncut": here.machine.place(copy.deepcopy(dense.network)), "from-scratch": artifact.begin(card)}
    recalibration.batch_norm(networks["uncut"], here.train)
    return {
        name: loop.fit(network, here.lesson(network, prune.recovery, prune.training, seed), run, name)
        for name, network in networks.items()
    }


def controls(histories: dict[str, History], epochs: int) -> dict[str, loop.Summary]:
    return {name: loop.summary(histories[name], epochs) for name in ("uncut", "from-scratch")}


def loss(network: nn.Module, pictures: Pictures) -> float:
    return functional.cross_entropy(evaluation.logits(network, pictures), pictures.labels).item()


def narrow(
    network: nn.Module, plan: Plan, here: School, calibrating: Pictures, run: Run
) -> tuple[nn.Module, dict[str, Any], dict[str, History]]:
    """Cut by cut, with recovery after each; the last one has all the epochs of the settings."""
    prune, seed = plan.settings, plan.seed
    between = prune.training.model_copy(update={"epochs": prune.between, "patience": prune.between})
    steps, histories = dict[str, Any](), dict[str, History]()
    for step in range(1, prune.steps + 1):
        gradients = importances.gradients(here.machine.place(network), prune.importance, calibrating)
        share = prune.sparsity * step / prune.steps
        network = here.machine.place(cutting.shrink(network, share, plan, gradients))
        recalibration.batch_norm(network, here.train)
        answers = evaluation.logits(network, here.val)
        removed = plan.goal(network)
        steps[str(step)] = {"removed": removed, "val_accuracy": evaluation.accuracy(answers, here.val.labels)}
        is_last = step == prune.steps
        training, name = (prune.training, "pruned") if is_last else (between, f"cut-{step}")
        if training.epochs:
            histories[name] = loop.fit(network, here.lesson(network, prune.recovery, training, seed), run, name)
    return network, steps, histories
