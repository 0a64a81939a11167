"""Ways to calibrate, and which layer it is that loses: both are seen on val."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from stages.core import params
from stages.core.quantized import inserting
from stages.core.quantizing import calibration
from stages.core.quantizing.calibration import Integers
from stages.core.running import progress

Judge = Callable[[nn.Module], Mapping[str, float]]

# The ranges that most toolkits offer, with and without channels made equal, biases corrected, zero points
EXTREMES, ENTROPY, SQUARES = {"name": "minmax"}, {"name": "entropy"}, {"name": "mse"}
MOST, NEARLY_ALL = ({"name": "percentile", "percentile": share} for share in (99.9, 99.99))
WAYS: Sequence[Mapping[str, Any]] = (
    {"range": NEARLY_ALL, "equalize_iterations": 20, "correct": "moments", "zero_points": True},
    {"range": NEARLY_ALL, "equalize_iterations": 0, "correct": "moments", "zero_points": True},
    {"range": NEARLY_ALL, "equalize_iterations": 0, "correct": "bias", "zero_points": True},
    {"range": NEARLY_ALL, "equalize_iterations": 0, "correct": "moments", "zero_points": False},
    {"range": MOST, "equalize_iterations": 0, "correct": "moments", "zero_points": True},
    {"range": EXTREMES, "equalize_iterations": 20, "correct": "moments", "zero_points": True},
    {"range": EXTREMES, "equalize_iterations": 0, "correct": "moments", "zero_points": True},
    {"range": SQUARES, "equalize_iterations": 20, "correct": "moments", "zero_points": True},
    {"range": SQUARES, "equalize_iterations": 0, "correct": "moments", "zero_points": True},
    {"range": ENTROPY, "equalize_iterations": 0, "correct": "moments", "zero_points": True},
)


@dataclass(frozen=True)
class Tried:
    way: Mapping[str, Any]
    val_accuracy: float
    val_loss: float


def ways(settings: params.Integer, calibrate: Callable[[params.Integer], Integers], judge: Judge) -> list[Tried]:
    """The settings as they are come first."""
    own: Mapping[str, Any] = settings.model_dump(mode="json", include=set(WAYS[0]))
    different = [own]
    for way in WAYS:
        suited = {**way, "correct": "bias"} if settings.scales == "tensor" else way
        different += [] if suited in different else [suited]
    found: list[Tried] = []
    for way in progress.track(different, "ways to calibrate", len(different)):
        found.append(Tried(way, **judge(calibrate(changed(settings, way)).network)))
    return found


def changed(settings: params.Integer, way: Mapping[str, Any]) -> params.Integer:
    return params.Integer.model_validate(settings.model_dump(mode="json") | dict(way))


def best(found: Sequence[Tried]) -> Tried:
    """Highest accuracy, then lowest loss, then the first."""
    return max(found, key=lambda one: (one.val_accuracy, -one.val_loss))


def scan(made: Integers, judge: Judge) -> dict[str, float]:
    """Accuracy on val with nothing rounded but one layer's weights, or what flows at one place."""
    places = [(name, layer.weight_quant) for name, layer in inserting.layers(made.network)]
    places += list(inserting.flows(made.network))
    found: dict[str, float] = {}
    with calibration.exact(made.network):
        for name, place in progress.track(places, "each place alone", len(places)):
            inserting.grid_of(place).on = True
            found[name] = judge(made.network)["val_accuracy"]
            inserting.grid_of(place).on = False
    return found
