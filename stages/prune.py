"""The student loses blocks, channels, heads and single weights, and recovers what it can by learning on."""

from torch import nn
from torch.nn import functional

from stages.core import batches, counting, evaluation, machine, params, statistics, zeros
from stages.core.batches import Pictures
from stages.core.datasets import storage
from stages.core.networks import artifact, widths
from stages.core.networks.artifact import Model
from stages.core.objectives import building
from stages.core.pruning import blocks, cutting, goals, heads, importances, sensitivity, trial
from stages.core.pruning.cutting import Plan
from stages.core.pruning.trial import CONTROLS, Trial
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
    scanned: Output,
) -> None:
    here = school.enter(train, val, teacher, advice, advise, augment, machine.choose(compute, seed))
    dense = artifact.load(student)
    facts = dense.card.facts
    calibrating = batches.on_device(storage.load(calibration), here.machine)
    whole = here.machine.place(dense.network)
    shallow, gone = blocks.without(
        whole, prune.blocks, facts.image_size, prune.protect, lambda one: loss(one, calibrating)
    )
    plan = scan(cutting.plan(dense, shallow, prune, seed), shallow, here, calibrating)
    sensitivity.write(scanned, plan.tried)
    parents = {"student": student} | ({"teacher": teacher} if building.listens(prune.recovery) else {})
    trials = [Trial(plan, here, dense.card, seed + number, number, run) for number in range(prune.seeds)]
    for one in trials:
        network = one.narrow(shallow, calibrating)
        if one.number == 0:
            artifact.save_float(pruned, network, dense.card.architecture, facts, {}, **parents)
        if prune.controls:
            one.beside(dense.network, network)
    histories = {loop.numbered(name, one.number): rows for one in trials for name, rows in one.histories.items()}
    curves.write(history, histories)
    network = artifact.load(pruned).network
    before, after = size(dense, dense.network), size(dense, network)
    accuracies = [one.accuracies for one in trials]
    run.metrics(
        metrics,
        loop.summary(histories["pruned"], prune.training.epochs)
        | {
            "val_accuracy_before_recovery": trials[0].steps[str(prune.steps)]["val_accuracy"],
            **{name: after[name] for name in ("parameters", "macs")},
            **{f"{name}_removed": 1 - after[name] / before[name] for name in before},
            "before": before,
            "after": after | {"nonzero": sum(int(weight.count_nonzero()) for weight in network.parameters())},
            "zeros": zeros.share(zeros.weights(network).values()),
            "of": prune.of,
            "blocks": {name: number for number, name in enumerate(gone, start=1)},
            "controls": controls(histories, prune) if prune.controls else None,
            "steps": trials[0].steps,
            "seeds": {str(one.seed): found for one, found in zip(trials, accuracies, strict=True)},
            "against": statistics.against("pruned", CONTROLS, accuracies, prune.confidence),
            "confidence": prune.confidence,
            "channels": cutting.kept_channels(widths.outputs(dense.network), widths.outputs(network)),
            "heads": cutting.kept_heads(heads.counts(dense.network), heads.counts(network)),
            "zeros_by_layer": zeros.by_layer(network),
        },
    )


def scan(plan: Plan, network: nn.Module, here: School, calibrating: Pictures) -> Plan:
    """What each layer bears, on val, where somebody wants to know."""
    if not plan.settings.scan:
        return plan

    def judge(one: nn.Module) -> dict[str, float]:
        return evaluation.on_val(evaluation.logits(here.machine.place(one), here.val), here.val.labels)

    gradients = importances.gradients(here.machine.place(network), plan.settings.importance, calibrating)
    return cutting.scan(network, plan, gradients, judge)


def controls(histories: dict[str, History], prune: params.Prune) -> dict[str, loop.Summary]:
    return {name: loop.summary(histories[name], trial.budget(prune)) for name in CONTROLS}


def size(dense: Model, network: nn.Module) -> dict[str, int]:
    """Bytes are those of the float32 file that would be shipped."""
    return {
        "parameters": counting.parameters(network),
        "macs": counting.multiply_accumulates(network, dense.card.facts.image_size),
        "bytes": goals.shipped(Model(network, dense.card)),
    }


def loss(network: nn.Module, pictures: Pictures) -> float:
    return functional.cross_entropy(evaluation.logits(network, pictures), pictures.labels).item()
