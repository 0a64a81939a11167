"""Every number of bits goes the whole way: calibrated, saved, loaded, shipped, run as integers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.core import params
from stages.core.params import WeightBits
from stages.core.quantized import inserting, integers
from stages.core.quantized.grid import Grid
from stages.core.shipping import gate, packing, running, writing
from tests.integer_networks import NETWORKS, WIDTHS, kept, made, pictures, wanted

pytestmark = pytest.mark.slow

FLOWS = (6, 4, 2)
FAST = [("graph", 1, 8), ("attention", 4, 6)]
PAIRS = [(bits, 8) for bits in WIDTHS] + [(4, flow) for flow in FLOWS]
ALL = [(kind, bits, flow) for kind in NETWORKS for bits, flow in PAIRS]
LEVELS: dict[WeightBits, int] = {**{bits: 2**bits - 1 for bits in range(3, 9)}, 2: 4, "ternary": 3, 1: 2}
LARGE = params.ResNet9(name="resnet9", width=0.5)


@pytest.mark.parametrize(
    ("kind", "bits", "flow"),
    [pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow) for case in ALL],
)
@torch.no_grad()
def test_the_whole_way(tmp_path: Path, kind: str, bits: WeightBits, flow: int) -> None:
    settings = wanted(weights=bits, activations=flow, range={"name": "mse"}, correct="moments")
    found = made(NETWORKS[kind], settings)
    model, (stored, seen) = kept(tmp_path / "model", NETWORKS[kind], settings, found), pictures(16, seed=3)
    expected = model.network(seen)
    assert torch.equal(expected, found.network(seen))
    codes = integers.all_codes(model.network)
    most = {name: max(len(row.unique()) for row in matrix) for name, matrix in codes.items()}
    assert all(most[name] <= LEVELS[found.weights[name]] for name in codes)
    assert {found.weights[name] for name in found.free} == {bits}

    path = tmp_path / "file.onnx"
    writing.write(model, path, 18, {})
    answered = torch.from_numpy(running.logits(path, stored))
    near = (answered - expected).abs().amax(1) < 1e-3 * expected.abs().max()
    assert near.float().mean() > 0.7  # a sum that falls between two codes may go either way, and what follows with it
    counts = running.kernels(path)
    assert (counts["integer_kernels"], counts["float_kernels"]) == (len(codes), 0)
    gate.codes("x", path, {name: matrix.numpy() for name, matrix in codes.items()}, found.weights)


@pytest.mark.slow
@pytest.mark.parametrize("bits", WIDTHS)
def test_a_large_file_is_hardly_larger_than_its_bits(tmp_path: Path, bits: WeightBits) -> None:
    settings = wanted(weights=bits)
    found = made(LARGE, settings)
    model = kept(tmp_path / "model", LARGE, settings, found)
    path = tmp_path / "file.onnx"
    writing.write(model, path, 18, {})
    assert path.stat().st_size <= 1.05 * packing.ideal(path)
    widths = {8: 8, "ternary": 2}.get(bits, bits)
    weights = sum(map(torch.numel, integers.all_codes(model.network).values()))
    assert isinstance(widths, int)
    assert path.stat().st_size < 1.1 * weights * widths / 8 + 40_000


@pytest.mark.slow
def test_what_is_rounded_twice_in_a_row_is_rounded_alike(tmp_path: Path) -> None:
    """ONNX Runtime makes one rounding of two, of which it knows no more than the ranges that calibration gives."""
    settings, kind = wanted(), NETWORKS["layers"]
    found = made(kind, settings)
    flows = dict(inserting.flows(found.network))
    shared = [one for one in set(map(inserting.grid_of, flows.values())) if _users(flows, one) > 1]
    assert shared
    for at, flow in enumerate(flows.values()):
        one = inserting.grid_of(flow)
        one.set(one.scale * (1.5 if at % 2 else 0.8))
    model = kept(tmp_path / "kept", kind, settings, found)
    stored, images = pictures(64)
    with torch.no_grad():
        expected = model.network(images).numpy()
    writing.write(model, tmp_path / "file.onnx", 18, {})
    answers = running.logits(tmp_path / "file.onnx", stored)
    assert np.median(np.abs(answers - expected).max(axis=1)) < 1e-4 * np.abs(expected).max()


def _users(flows: dict[str, inserting.Flow], one: Grid) -> int:
    return sum(inserting.grid_of(flow) is one for flow in flows.values())
