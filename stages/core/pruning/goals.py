"""What is to shrink. Contract: a model gives a function of a narrower network, the share of it that is gone."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from onnxruntime import InferenceSession
from torch import nn

from stages.core import counting, zeros
from stages.core.networks.artifact import Model
from stages.core.shipping import sessions, writing

OPSET = 18
ROUNDS, CALLS = 7, 15  # in turns, so that whatever slows the machine slows both

Goal = Callable[[nn.Module], float]
Used = TypeVar("Used")


def parameters(dense: Model) -> Goal:
    return _share(dense, lambda network: counting.parameters(network))


def macs(dense: Model) -> Goal:
    size = dense.card.facts.image_size
    return _share(dense, lambda network: counting.multiply_accumulates(network, size))


def file_bytes(dense: Model) -> Goal:
    """Zeros count in full: they come after the cut, and are asked for by themselves."""

    def filled(network: nn.Module) -> int:
        network = copy.deepcopy(network)
        for weight in zeros.weights(network).values():
            numbers = torch.linspace(1, 2, weight.numel()).view_as(weight)  # all different, which packs no better
            weight.data = torch.where(weight == 0, numbers.to(weight), weight.data)
        return shipped(Model(network, dense.card))

    return _share(dense, filled)


def shipped(model: Model) -> int:
    """Bytes of the float32 file."""
    return _exported(model, lambda path: path.stat().st_size)


def milliseconds(dense: Model) -> Goal:
    """Of one picture on one thread of this machine's CPU, in ONNX Runtime, measured beside the network it came from."""
    size = dense.card.facts.image_size
    picture = np.zeros((1, size, size, 3), np.uint8)
    before = _exported(dense, _loaded)

    def removed(network: nn.Module) -> float:
        after = _exported(Model(network, dense.card), _loaded)
        times = [[np.median(sessions.clock(one, picture, CALLS)) for one in (before, after)] for _ in range(ROUNDS)]
        return 1 - float(np.median([fast / slow for slow, fast in times[1:]]))

    return removed


def _share(dense: Model, measure: Callable[[nn.Module], int]) -> Goal:
    whole = measure(dense.network)
    return lambda network: 1 - measure(network) / whole


def _exported(model: Model, use: Callable[[Path], Used]) -> Used:
    """A copy is written, since an exported network is moved to the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        writing.write(Model(copy.deepcopy(model.network), model.card), path, OPSET, {})
        return use(path)


def _loaded(path: Path) -> InferenceSession:
    return sessions.session(path, threads=1)


GOALS: Mapping[str, Callable[[Model], Goal]] = {
    "parameters": parameters,
    "macs": macs,
    "bytes": file_bytes,
    "milliseconds": milliseconds,
}

MISSES: Mapping[str, float] = {"parameters": 0.02, "macs": 0.02, "bytes": 0.02, "milliseconds": 0.05}  # at most
