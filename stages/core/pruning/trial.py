"""One seed: the network that is cut and learns on, and its controls that learn as long."""

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from stages.core import evaluation, params, recalibration, zeros
from stages.core.batches import Pictures
from stages.core.networks import artifact
from stages.core.networks.artifact import Card
from stages.core.pruning import cutting, grouping, importances, thinning
from stages.core.pruning.cutting import Plan
from stages.core.pruning.lasso import Lasso
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.schooling.school import School
from stages.core.training import loop
from stages.core.training.loop import History

FOUND = "cut.json"
CONTROLS = ("uncut", "from-scratch")
PACES = {"equal": lambda time: time, "cubic": lambda time: 1 - (1 - time) ** 3}  # cubic: Zhu and Gupta 2017


@dataclass
class Trial:
    """`number` 0 is the first, whose network goes on."""

    plan: Plan
    school: School
    card: Card  # of the dense network
    seed: int
    number: int
    run: Run
    steps: dict[str, Any] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)

    def narrow(self, network: nn.Module, calibrating: Pictures) -> nn.Module:
        """Cut by cut, with recovery after each; the last one has all the epochs of the settings."""
        prune, place = self.plan.settings, self.school.machine.place
        network = place(copy.deepcopy(network))
        if prune.lasso:
            groups = grouping.groups(network, self.plan.image_size, self.plan.kept)
            drawing = partial(Lasso, settings=prune.lasso, groups=groups)
            self._learn(network, "drawn", _shortened(prune, prune.lasso.epochs), constraint=drawing, ends_with="last")
            _refuse_empty(network, prune.lasso)
        for step in range(1, prune.steps + 1):
            network = place(self._cut(network, step, calibrating))
            if step == prune.steps:
                self._learn(network, "pruned", prune.training)
            elif prune.between:
                self._learn(network, f"cut-{step}", _shortened(prune, prune.between))
        return network

    def _cut(self, network: nn.Module, step: int, calibrating: Pictures) -> nn.Module:
        """Kept at once: a cut by measured time would be another one when an interrupted stage goes on."""
        kept = self.run.scratch / loop.numbered(f"after-cut-{step}", self.number)
        if self.school.machine.team.leads and not kept.is_dir():
            network = self._less(network, step, calibrating)
            unfinished = kept.with_name(f"{kept.name}.partial")
            files.remove(unfinished)
            artifact.save_float(unfinished, network, self.card.architecture, self.card.facts)
            files.write_json(unfinished / FOUND, self._judged(network))
            files.publish(unfinished, kept)
        kept = self.school.machine.same(kept)
        self.steps[str(step)] = files.read_json(kept / FOUND)
        return artifact.load(kept).network

    def _less(self, network: nn.Module, step: int, calibrating: Pictures) -> nn.Module:
        prune, size = self.plan.settings, self.plan.image_size
        plan, is_last = replace(self.plan, seed=self.seed), step == prune.steps
        growth = PACES[prune.pace](step / prune.steps)
        gradients = importances.gradients(network, prune.importance, calibrating)
        network = cutting.shrink(network, prune.sparsity * growth, plan, gradients, must_reach=is_last)
        network = self.school.machine.place(network)
        gradients = importances.gradients(network, prune.zeros.importance, calibrating)
        if isinstance(prune.zeros, params.Pattern) and prune.sparsity and not is_last:
            growth = 0.0  # inputs that go would shift it
        thinning.thin(network, prune.zeros, growth, prune.protect, gradients, size, self.seed)
        recalibration.batch_norm(network, self.school.train)
        return network

    def _judged(self, network: nn.Module) -> dict[str, float]:
        val = self.school.val
        return {
            "removed": self.plan.goal(network),
            "zeros": zeros.share(zeros.weights(network).values()),
            "val_accuracy": evaluation.accuracy(evaluation.logits(network, val), val.labels),
        }

    def beside(self, dense: nn.Module, narrow: nn.Module) -> None:
        """The same lessons for the network that lost nothing, and for the narrow one that never knew anything."""
        torch.manual_seed(self.seed)
        card = artifact.card_of(narrow, self.card.architecture, self.card.facts)
        uncut, begun = copy.deepcopy(dense), artifact.begin(card)
        if thinning.asked(self.plan.settings.zeros):
            with torch.no_grad():
                for name, weight in zeros.weights(narrow).items():
                    zeros.weights(begun)[name].mul_((weight != 0).cpu())
        recalibration.batch_norm(self.school.machine.place(uncut), self.school.train)
        training = self.plan.settings.training.model_copy(update={"epochs": budget(self.plan.settings)})
        for name, network in zip(CONTROLS, (uncut, begun), strict=True):
            self._learn(network, name, training)

    @property
    def accuracies(self) -> dict[str, float | None]:
        return {name: self._best(name) for name in ("pruned", *CONTROLS)}

    def _best(self, name: str) -> float | None:
        rows = self.histories.get(name)
        return rows[loop.best_epoch(rows) - 1]["val_accuracy"] if rows else None

    def _learn(self, network: nn.Module, name: str, training: params.Training, **changes: Any) -> None:
        """Zeros that were asked for stay, unless something else is to hold."""
        lesson = self.school.lesson(network, self.plan.settings.recovery, training, self.seed)
        held = {"constraint": zeros.Held} if thinning.asked(self.plan.settings.zeros) else {}
        lesson = replace(lesson, **{**held, **changes})
        self.histories[name] = loop.fit(network, lesson, self.run, loop.numbered(name, self.number))


def budget(prune: params.Prune) -> int:
    """All the epochs that the pruned network learns, from the dense one on."""
    drawn = prune.lasso.epochs if prune.lasso else 0
    return drawn + (prune.steps - 1) * prune.between + prune.training.epochs


def _refuse_empty(network: nn.Module, lasso: params.Lasso) -> None:
    for name, share in zeros.by_layer(network).items():
        if share == 1:
            raise Refusal(f"prune.lasso drew all of layer {name} to zero: lower its strength, {lasso.strength:g}")


def _shortened(prune: params.Prune, epochs: int) -> params.Training:
    return prune.training.model_copy(update={"epochs": epochs, "patience": epochs})
