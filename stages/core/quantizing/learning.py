"""One seed: the integer network learns on, roundings included, and its control learns as long in floating point."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from stages.core import batches, evaluation, params, plain, recalibration, zeros
from stages.core.quantized import grid, inserting
from stages.core.quantizing import calibration, normalising
from stages.core.quantizing.calibration import Integers
from stages.core.running.journal import Run
from stages.core.schooling.school import School
from stages.core.training import loop
from stages.core.training.constraints import All
from stages.core.training.loop import History

CONTROLS = ("float", "rounded")  # after as many epochs in floating point, and that network rounded at last


@dataclass
class Trial:
    """`number` 0 is the first, whose network goes on."""

    dense: nn.Module
    made: Integers
    quantize: params.Quantize
    method: params.Integer
    recovery: params.Recovery
    images: Sequence[Tensor]
    school: School
    seed: int
    number: int
    run: Run
    accuracies: dict[str, float | None] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)

    def learn(self) -> None:
        """Width by width down the ladder; what was learnt in one is what the next begins with."""
        made, network = self.made, copy.deepcopy(self.made.network)
        layers = dict(inserting.layers(network))
        if self.method.scales == "channel":  # one scale for all channels could not take up a factor for each
            normalising.normalise(network, [name for name in self._normal() if name in layers], self.images)
        training, ladder = self.quantize.training, self.quantize.ladder
        for bits in ladder.weights:
            for name, layer in layers.items():
                widest = max(bits, made.weights[name], key=params.width)
                calibration.regrid(layer, widest, self.method.scales)
            self._learn(network, f"at-{bits}", _as_long(training, ladder.epochs), self._quantized)
        for name, layer in layers.items() if ladder.weights else ():
            calibration.regrid(layer, made.weights[name], self.method.scales)
        self._learn(network, "quantized", training, self._quantized)
        recalibration.batch_norm(network, self.school.train)
        normalising.fold(network)
        self.accuracies["quantized"] = self._judge(network)
        self.made = replace(made, network=network.eval())

    def beside(self) -> None:
        """As many epochs in floating point, and then integers as calibration alone makes them."""
        network = self.school.machine.place(copy.deepcopy(self.dense))
        self._learn(network, "float", _as_long(self.quantize.training, budget(self.quantize)), zeros.Held)
        self.accuracies["float"] = self._judge(network)
        rounded = calibration.calibrate(network, self.method, self.images, self.seed, self.made.weights)
        self.accuracies["rounded"] = self._judge(rounded.network)

    def _learn(self, network: nn.Module, name: str, training: params.Training, constraint: Any) -> None:
        steps = batches.batches_per_epoch(len(self.school.train), training.batch_size, self.school.machine.team.size)
        passes = training.epochs * steps * training.accumulate
        normalising.settle_after(network, round(self.quantize.settle * passes))
        lesson = self.school.lesson(network, self.recovery, training, self.seed)
        lesson = replace(lesson, constraint=constraint)
        self.histories[name] = loop.fit(network, lesson, self.run, loop.numbered(name, self.number))

    @staticmethod
    def _quantized(network: nn.Module) -> All:
        return All(zeros.Held(network), grid.Positive(network), normalising.Upright(network))

    def _normal(self) -> list[str]:
        """Convolutions that a BatchNorm stands behind in the network as it came."""
        example = self.images[0][:1].cpu()
        network = copy.deepcopy(self.dense).cpu().eval()
        readers = plain.watch(network, example).readers
        norms = nn.BatchNorm1d | nn.BatchNorm2d
        return [name for name, reader in readers.items() if isinstance(network.get_submodule(reader), norms)]

    def _judge(self, network: nn.Module) -> float:
        val = self.school.val
        return evaluation.accuracy(evaluation.logits(self.school.machine.place(network), val), val.labels)


def budget(quantize: params.Quantize) -> int:
    """All the epochs that the integer network learns."""
    return quantize.training.epochs + len(quantize.ladder.weights) * quantize.ladder.epochs


def _as_long(training: params.Training, epochs: int) -> params.Training:
    return training.model_copy(update={"epochs": epochs, "patience": epochs})
