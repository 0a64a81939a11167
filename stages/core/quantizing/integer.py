"""Integers by calibration, and by learning on where that is asked for."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from stages.core import params, statistics, zeros
from stages.core.quantized import integers
from stages.core.quantizing import allotting, calibration, learning, searching
from stages.core.quantizing.calibration import Bits, Integers
from stages.core.quantizing.course import Asked, Made
from stages.core.quantizing.learning import Trial
from stages.core.running import progress
from stages.core.training import loop

WORST = 3  # places that are named


def make(asked: Asked, method: params.Integer) -> Made:
    def calibrate(settings: params.Integer, allotted: Bits | None = None) -> Integers:
        return calibration.calibrate(copy.deepcopy(asked.model.network), settings, asked.images, asked.seed, allotted)

    tried = searching.ways(method, calibrate, asked.judge) if asked.quantize.search else []
    if tried:
        method = searching.changed(method, searching.best(tried).way)
    made, choices = calibrate(method), list[allotting.Choice]()
    if isinstance(method.weights, params.Auto):
        choices = allotting.choices(made, method.weights, method.scales, asked.judge)

        def drop(bits: Bits) -> float:
            return asked.before - asked.judge(calibrate(method, bits).network)["val_accuracy"]

        made = calibrate(method, allotting.allot(made, choices, method.weights.budget, drop))
    calibrated = asked.judge(made.network)["val_accuracy"]
    alone = {}
    if asked.before - calibrated > asked.quantize.scan_beyond:
        plain = searching.changed(method, {"rounding": {"name": "nearest"}, "correct": "nothing"})
        alone = _scan(asked, calibrate(plain, made.weights), calibrated)
    trials = _learn(asked, method, asked.quantize.recovery, made) if asked.quantize.recovery else []
    if trials:
        made = trials[0].made
    card = dataclasses.replace(asked.model.card, quantization=method, bits=made.weights, flows=made.flows)
    facts = {
        "val_accuracy_calibrated": calibrated,
        "tried": [dataclasses.asdict(one) for one in tried],
        "choices": [dataclasses.asdict(one) for one in choices],
        "alone": alone,
        "layers": _layers(made),
        "flows": made.flows,
        "weight_bytes": allotting.size(made, made.weights),
        "zeros": zeros.share(zeros.weights(made.network).values()),
    }
    histories = {loop.numbered(name, one.number): rows for one in trials for name, rows in one.histories.items()}
    return Made(
        card, lambda folder, own: integers.save(folder, made.network, own), facts | _learnt(asked, trials), histories
    )


def _scan(asked: Asked, made: Integers, calibrated: float) -> dict[str, float]:
    """Of a network whose other places could not make up for any."""
    lost = asked.before - calibrated
    found = searching.scan(made, asked.judge)
    worst = sorted(found, key=found.__getitem__)[:WORST]
    told = ", ".join(f"{name} ({asked.before - found[name]:.2%} alone)" for name in worst)
    progress.note(
        f"calibration alone costs {lost:.2%} of accuracy on val; rounded by themselves, these cost most: {told}. More "
        "bits for layers under quantize.method.layers, or for all that flows by activations, would spare them"
    )
    return found


def _learn(asked: Asked, method: params.Integer, recovery: params.Recovery, made: Integers) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(asked.quantize.seeds):
        trial = Trial(
            asked.model.network,
            made,
            asked.quantize,
            method,
            recovery,
            asked.images,
            asked.school,
            asked.seed + number,
            number,
            asked.run,
        )
        trial.learn()
        if asked.quantize.controls:
            trial.beside()
        trials.append(trial)
    return trials


def _learnt(asked: Asked, trials: list[Trial]) -> dict[str, Any]:
    if not trials:
        return {"recovery": None, "seeds": {}, "against": {}, "budget": 0, "confidence": asked.quantize.confidence}
    accuracies: list[Mapping[str, float | None]] = [trial.accuracies for trial in trials]
    summary = loop.summary(trials[0].histories["quantized"], asked.quantize.training.epochs)
    summary |= trials[0].judged  # with BatchNorm estimated anew
    return {
        "recovery": summary,
        "seeds": {str(trial.seed): trial.accuracies for trial in trials},
        "against": statistics.against("quantized", learning.CONTROLS, accuracies, asked.quantize.confidence),
        "budget": learning.budget(asked.quantize),
        "confidence": asked.quantize.confidence,
    }


def _layers(made: Integers) -> dict[str, dict[str, Any]]:
    levels, weights = integers.levels(made.network), zeros.weights(made.network)
    return {
        name: {
            "bits": made.weights[name],
            "weights": weights[name].numel(),
            "levels": levels[name],
            "zeros": zeros.share([weights[name]]),
            "error": made.errors.get(name),
        }
        for name in levels
    }
