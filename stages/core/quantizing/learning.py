"""One seed: the integer network learns on, roundings included, and its control learns as long in floating point."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from stages.core import batches, evaluation, params, plain, recalibration, zeros
from stages.core.quantized import grid, inserting
from stages.core.quantized.inserting import Layer
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
    judged: dict[str, float] = field(default_factory=dict)  # of val, as it goes on

    def learn(self) -> None:
        """Width by width down the ladder; what was learnt in one is what the next begins with."""
        made, network, training = self.made, copy.deepcopy(self.made.network), self.quantize.training
        layers = dict(inserting.layers(network))
        if self.method.scales == "channel":  # one scale for all channels could not take up a factor for each
            normal = [name for name in self._normal() if name in layers]
            normalising.normalise(network, made.merged, normal, self.images)
        ladder = self.quantize.ladder
        for bits in ladder.weights:
            self._step_down(
                network, layers, {name: max(bits, few, key=params.width) for name, few in made.weights.items()}
            )
            self._learn(network, f"at-{bits}", _as_long(training, ladder.epochs), self._quantized)
        self._step_down(network, layers, made.weights)
        self._learn(network, "quantized", training, self._quantized)
        grid.settle(network)
        self._estimate_anew(network)
        normalising.fold(network)
        self.judged = self._judge(network)
        self.accuracies["quantized"] = self.judged["val_accuracy"]
        self.made = replace(made, network=network.eval())

    def _step_down(self, network: nn.Module, layers: Mapping[str, Layer], bits: calibration.Bits) -> None:
        """Other bits ask for other scales; what flows has learnt its own, but at the beginning."""
        if any(
            grid.of_weights(bits[name]) != inserting.grid_of(layer.weight_quant).levels
            for name, layer in layers.items()
        ):
            for name, layer in layers.items():
                calibration.regrid(layer, bits[name], self.method.scales)
        recalibration.batch_norm(network, self.school.train)
        if not self.histories:
            calibration.find_ranges(network, self.method, self.images)

    def _estimate_anew(self, network: nn.Module) -> None:
        """What BatchNorm knows of all pictures, unless what it knew when it came to rest is better on val."""
        before, kept = self._judge(network), copy.deepcopy(network.state_dict())
        recalibration.batch_norm(network, self.school.train)
        after = self._judge(network)
        if (after["val_accuracy"], -after["val_loss"]) < (before["val_accuracy"], -before["val_loss"]):
            network.load_state_dict(kept)

    def beside(self) -> None:
        """As many epochs in floating point, and then integers as calibration alone makes them."""
        network = self.school.machine.place(copy.deepcopy(self.dense))
        self._learn(network, "float", _as_long(self.quantize.training, budget(self.quantize)), zeros.Held)
        self.accuracies["float"] = self._judge(network)["val_accuracy"]
        rounded = calibration.calibrate(network, self.method, self.images, self.seed, self.made.weights)
        self.accuracies["rounded"] = self._judge(rounded.network)["val_accuracy"]

    def _learn(self, network: nn.Module, name: str, training: params.Training, constraint: Any) -> None:
        steps = batches.batches_per_epoch(len(self.school.train), training.batch_size, self.school.machine.team.size)
        passes = training.epochs * steps * training.accumulate
        normalising.settle_after(network, round(self.quantize.settle * passes))
        lesson = self.school.lesson(network, self.recovery, training, self.seed)
        lesson = replace(lesson, constraint=constraint)
        self.histories[name] = loop.fit(network, lesson, self.run, loop.numbered(name, self.number))

    @staticmethod
    def _quantized(network: nn.Module) -> All:
        return All(zeros.Held(network), normalising.Upright(network))

    def _normal(self) -> list[str]:
        """Convolutions that a BatchNorm stands behind in the network as it came."""
        example = self.images[0][:1].cpu()
        network = copy.deepcopy(self.dense).cpu().eval()
        readers = plain.watch(network, example).readers
        norms = nn.BatchNorm1d | nn.BatchNorm2d
        return [name for name, reader in readers.items() if isinstance(network.get_submodule(reader), norms)]

    def _judge(self, network: nn.Module) -> dict[str, float]:
        val = self.school.val
        return evaluation.on_val(evaluation.logits(self.school.machine.place(network), val), val.labels)


def budget(quantize: params.Quantize) -> int:
    """All the epochs that the integer network learns."""
    return quantize.training.epochs + len(quantize.ladder.weights) * quantize.ladder.epochs


def _as_long(training: params.Training, epochs: int) -> params.Training:
    return training.model_copy(update={"epochs": epochs, "patience": epochs})
