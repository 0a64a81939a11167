"""What the tests of converters hand over: a small network with branches that are added, depthwise convolutions and odd
numbers of channels, in floating point and in integers, as ONNX files of plain operators."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from stages.core.converting.handing import FromPixels
from stages.core.converting.makers.protocol import Handed
from stages.core.networks.artifact import Card, Model
from stages.core.quantizing import calibration
from stages.core.shipping import running, writing
from tests.integer_networks import FACTS, SIZE, pictures, wanted
from tests.lessons import SMALL

OPSET = 17


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(7, 21, 1)
        self.deep = nn.Conv2d(21, 21, 3, padding=1, groups=21)
        self.narrow = nn.Conv2d(21, 7, 1)
        self.down = nn.Conv2d(7, 13, 3, stride=2, padding=1)
        self.last = nn.Linear(13, len(FACTS.classes))
        self.relu, self.swish = nn.ReLU(), nn.Hardswish()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        before = self.relu(self.stem(images))
        after = self.narrow(self.swish(self.deep(self.swish(self.wide(before)))))
        return self.last(self.pool(self.relu(self.down(before + after))).flatten(1))


PRODUCTS = 6


def hand_over(folder: Path) -> Handed:
    """Random weights, large enough for classes to differ."""
    torch.manual_seed(1)
    network, card = Odd().eval(), Card(SMALL, FACTS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    handed = Handed(folder)
    folder.mkdir(parents=True)
    _write(Model(network, card), handed.onnx)
    settings = wanted()
    made = calibration.calibrate(network, settings, [pictures(64, seed=5)[1]], seed=0)
    integer = dataclasses.replace(card, quantization=settings, bits=made.weights, flows=made.flows)
    _write(Model(made.network, integer), handed.integers)
    _write_facts(folder)
    return handed


def _write(model: Model, to: Path) -> None:
    written = to.with_suffix(".written")
    writing.write(model, written, OPSET, {})
    graph = running.folded(written)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8), to)


def hand_over_program(folder: Path) -> Handed:
    """The same in floating point, behind a batch norm, as a program for one picture; with its answers to `shown`."""
    torch.manual_seed(1)
    network, handed = Odd(), Handed(folder)
    norm = nn.BatchNorm2d(7)
    network.stem = nn.Sequential(network.stem, norm)  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
        norm.running_mean, norm.running_var = torch.linspace(-1, 1, 7), torch.linspace(0.5, 2, 7)
        network = FromPixels(network.eval(), FACTS).eval()
        answers = network(torch.from_numpy(shown()))
    folder.mkdir(parents=True)
    torch.export.save(torch.export.export(network, (torch.zeros(1, SIZE, SIZE, 3),)), handed.network)
    np.save(folder / "calibration.npy", shown())
    np.save(folder / "answers.npy", answers.numpy())
    _write_facts(folder)
    return handed


def _write_facts(folder: Path) -> None:
    facts = {name: getattr(FACTS, name) for name in ("classes", "image_size", "fit", "mean", "std")}
    (folder / "handed.json").write_text(json.dumps(facts))


def weights(path: Path) -> list[np.ndarray]:
    """Of every product, as they lie in an ONNX file."""
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer if len(tensor.dims) > 1]


def shown(count: int = 60) -> np.ndarray:
    """Plain areas beside noise, which is all alike to a network that averages."""
    random = np.random.default_rng(9)
    plain = random.integers(0, 256, (count, 2, 2, 3)).repeat(SIZE // 2, axis=1).repeat(SIZE // 2, axis=2)
    return np.clip(plain + random.integers(-20, 21, plain.shape), 0, 255).astype(np.uint8)
