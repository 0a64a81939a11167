"""One network in floating point with fewer and fewer bits by calibration alone: the files, side by side."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from stages.core import batches, hardware, machine, params, statistics
from stages.core.clocking import timing, turns, ways
from stages.core.clocking.tasks import Cell
from stages.core.datasets.storage import Split
from stages.core.machine import Machine
from stages.core.networks import artifact
from stages.core.networks.artifact import Model
from stages.core.quantizing import calibration
from stages.core.running import progress
from stages.core.shipping import gate, packing, running, writing

FLOAT = "float32"
CELL = Cell(ways.ONE_THREAD, 1)


@dataclass(frozen=True)
class Ladder:
    """Each method, once for each seed, which draws other pictures to calibrate with."""

    network: Path
    calibration: Split
    methods: Mapping[str, params.Integer]
    seeds: int
    settings: params.Params

    def files(self, scratch: Path) -> Iterator[tuple[str, list[Path]]]:
        here = machine.choose(self.settings.compute, self.settings.seed)
        drawn = [list(_normalised(self.drawn(seed), here)) for seed in range(self.seeds)]
        for number, (name, method) in enumerate(self.methods.items()):
            paths = [scratch / f"{number}-{seed}.onnx" for seed in range(self.seeds)]
            for seed, images in enumerate(drawn):
                self._write(method, images, seed, paths[seed])
            yield name, paths

    def drawn(self, seed: int) -> Split:
        """In the order they lie there, so that all there are give one draw."""
        among, wanted = self.calibration, self.settings.prepare.calibration_images
        chosen = np.sort(np.random.default_rng(seed).permutation(len(among))[:wanted])
        return Split(among.facts, among.images[chosen], among.labels[chosen])

    def _write(self, method: params.Integer, images: Sequence[Tensor], seed: int, path: Path) -> None:
        model = artifact.load(self.network)
        made = calibration.calibrate(model.network, method, images, seed)
        card = dataclasses.replace(model.card, quantization=method, bits=made.weights, flows=made.flows)
        writing.write(Model(made.network, card), path, self.settings.export.opset, {})


def compare(ladder: Ladder, beside: Sequence[Path], judging: Split, scratch: Path) -> dict[str, Any]:
    """Timed are the files of the first seed, and `beside`: whatever else answers the same pictures."""
    benchmark = ladder.settings.benchmark
    paths = {FLOAT: scratch / f"{FLOAT}.onnx"}
    writing.write(artifact.load(ladder.network), paths[FLOAT], ladder.settings.export.opset, {})
    draws = dict(progress.track(ladder.files(scratch), "calibrate and write", len(ladder.methods)))
    first = next(iter(draws))
    paths |= {name: made[0] for name, made in draws.items()} | {path.stem: path for path in beside}
    files = described(paths, judging, benchmark.confidence)
    for name, made in draws.items():
        accuracies = [files[name]["accuracy"], *(accuracy(path, judging) for path in made[1:])]
        files[name] |= {"method": ladder.methods[name].model_dump(mode="json"), "accuracies": accuracies}
    measured = turns.measure(paths, judging.images, [CELL], benchmark)
    for name, timed in timings({name: one.calls[CELL] for name, one in measured.items()}, first, benchmark).items():
        files[name] |= {"load_milliseconds": float(np.median(measured[name].load))} | timed
    return {"pictures": len(judging), "first": first, "machine": hardware.describe(), "files": files}


def timings(calls: Mapping[str, np.ndarray], first: str, settings: params.Benchmark) -> dict[str, dict[str, Any]]:
    """Each beside floating point and beside the first, round by round."""
    found: dict[str, dict[str, Any]] = {}
    for name, own in calls.items():
        found[name] = {CELL.way.name: timing.timing(own, CELL.batch, settings.confidence)}
        ratios = {
            f"times_faster_than_{FLOAT}": timing.times_faster(own, calls[FLOAT], settings.confidence),
            "times_as_long_as_first": timing.times_faster(calls[first], own, settings.confidence),
        }
        for what, (ratio, low, high) in ratios.items():
            found[name] |= {what: ratio, f"{what}_low": low, f"{what}_high": high}
    return found


def described(paths: Mapping[str, Path], judging: Split, confidence: float) -> dict[str, dict[str, Any]]:
    """What is lost is lost against the file in floating point, picture by picture."""
    answers = {name: running.logits(path, judging.images) for name, path in paths.items()}
    whole = paths[FLOAT].stat().st_size
    return {
        name: {
            "bytes": path.stat().st_size,
            f"share_of_{FLOAT}": path.stat().st_size / whole,
            "over_ideal": path.stat().st_size / packing.ideal(path),
            **judged(answers[name], answers[FLOAT], judging.labels, confidence),
            **running.kernels(path),
        }
        for name, path in paths.items()
    }


def judged(answers: np.ndarray, before: np.ndarray, labels: np.ndarray, confidence: float) -> dict[str, float]:
    found = gate.compare(before, answers, labels, confidence)
    low, high = statistics.wilson(int((answers.argmax(axis=1) == labels).sum()), len(labels), confidence)
    drop = {"drop": found.accuracy_drop, "drop_low": found.drop_low, "drop_high": found.drop_high}
    return {"accuracy": found.accuracy, "accuracy_low": low, "accuracy_high": high} | drop


def accuracy(path: Path, judging: Split) -> float:
    return float((running.logits(path, judging.images).argmax(axis=1) == judging.labels).mean())


def _normalised(split: Split, here: Machine) -> Iterator[Tensor]:
    return (images for images, _ in batches.in_order(batches.on_device(split, here)))
