"""What the tests of integer networks share: settings, small networks of three kinds, and what they answer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stages.core import params
from stages.core.datasets.storage import Facts
from stages.core.networks import families
from stages.core.networks.artifact import Card, Model
from stages.core.quantized import integers
from stages.core.quantizing import calibration
from stages.core.quantizing.calibration import Integers
from tests.lessons import SMALL

SIZE = 16
FACTS = Facts("any", ("a", "b", "c"), SIZE, (0.45,) * 3, (0.25,) * 3, "crop")
TINY = {"depth": 1, "embed_dim": 24, "num_heads": 2, "patch_size": 8}
NETWORKS: dict[str, params.Network] = {
    "graph": SMALL,
    "layers": params.Timm(name="timm", model="test_efficientnet", options={}),
    "attention": params.Timm(name="timm", model="vit_tiny_patch16_224", options=dict(TINY)),
}
WIDTHS: Sequence[params.WeightBits] = (8, 7, 6, 5, 4, 3, 2, "ternary", 1)


def wanted(**changes: object) -> params.Integer:
    """Extremes, the nearest codes, and nothing besides."""
    plain = {"name": "integer", "weights": 8, "activations": 8, "ends": 8, "layers": {}, "keep": []}
    plain |= {"scales": "channel", "zero_points": True, "range": {"name": "minmax"}, "rounding": {"name": "nearest"}}
    return params.Integer.model_validate(plain | {"equalize_iterations": 0, "correct": "nothing"} | changes)


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, Tensor]:
    """As they are stored, and as networks see them."""
    stored = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    return stored, (torch.from_numpy(stored).permute(0, 3, 1, 2) / 255 - 0.45) / 0.25


@torch.no_grad()
def dense(kind: params.Network) -> nn.Module:
    """BatchNorm has seen something, and scales channels differently."""
    torch.manual_seed(0)
    network = families.build(kind, len(FACTS.classes), SIZE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    network.train()(pictures(16, seed=7)[1])
    return network.eval()


def made(kind: params.Network, settings: params.Integer, count: int = 8) -> Integers:
    return calibration.calibrate(dense(kind), settings, [pictures(count)[1]], seed=0)


def kept(folder: Path, kind: params.Network, settings: params.Integer, made: Integers) -> Model:
    """Saved and loaded."""
    card = dataclasses.replace(Card(kind, FACTS), quantization=settings, bits=made.weights, flows=made.flows)
    integers.save(folder, made.network, card)
    return integers.load(folder)
