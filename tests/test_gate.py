"""The gate: which file leaves, and which one never does."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from stages.core import params
from stages.core.params import WeightBits
from stages.core.quantized import integers
from stages.core.running.errors import Refusal
from stages.core.shipping import gate, packing, writing
from tests.integer_networks import NETWORKS, kept, made, wanted


@pytest.mark.parametrize(
    ("change", "kept", "message"),
    [
        ({}, 0, ""),
        ({"integer_kernels": 0}, 0, "runs 0 products as integers"),
        ({"float_kernels": 1}, 0, "and 1 in floating point, with a weight, where 0 are to be kept so"),
        ({"float_kernels": 1}, 1, ""),
        ({}, 1, "and 0 in floating point, with a weight, where 1 are to be kept so"),
        ({"tensor_bytes": 10}, 0, "take 10 bytes unpacked, 100% of the float file's 10 .* may not be called integer"),
        ({"tensor_bytes": 10, "float_kernels": 1}, 1, ""),
    ],
)
def test_what_may_be_called_integer(settings: params.Params, change: dict[str, float], kept: int, message: str) -> None:
    file = {"integer_kernels": 8, "float_kernels": 0, "tensor_bytes": 3} | change
    _refused(message, gate.integer, "quantized", file, {"tensor_bytes": 10}, kept, settings.export)


def _refused(message: str, check: object, *arguments: object) -> None:
    assert callable(check)
    if message:
        with pytest.raises(Refusal, match=message):
            check(*arguments)
    else:
        check(*arguments)


@pytest.mark.parametrize(
    ("accuracy", "message"),
    [(0.95, ""), (0.75, ""), (0.7, r"loses 25\.00% accuracy on val against the float file \(the gate: 20\.00%\)")],
)
def test_fewer_bits_cost_little(settings: params.Params, accuracy: float, message: str) -> None:
    _refused(message, gate.accuracy, "x", {"accuracy": accuracy}, {"accuracy": 0.95}, settings.export)


@pytest.mark.parametrize(("size", "message"), [(1040, ""), (1060, r"takes 1060 bytes, 1\.060 times the 1000")])
def test_a_file_is_hardly_larger_than_its_bits(settings: params.Params, size: int, message: str) -> None:
    limits = settings.export.model_copy(update={"max_over_ideal": 1.05})
    _refused(message, gate.packing, "x", {"bytes": size, "ideal_bytes": 1000}, limits)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ([[2.0, 0], [0, 2]], ""),
        ([[0.0, 2], [0, 2]], r"x\.onnx is not the network it was made from: it agrees on 50\.00%"),
        ([[np.nan, 0], [0, 2]], r"x\.onnx gives answers that are not finite"),
    ],
    ids=["equal", "another answer", "not a number"],
)
def test_the_file_answers_as_its_network(settings: params.Params, file: list[list[float]], message: str) -> None:
    limits = settings.export.model_copy(update={"min_agreement": 0.99})
    found = gate.compare(np.array([[2.0, 0], [0, 2]]), np.array(file), np.array([0, 1]), 0.95)
    _refused(message, gate.parity, "x", found, limits)


def test_a_file_beside_its_network_by_hand() -> None:
    """Of 20 pictures, 3 are lost, 1 is won, 1 is wrong in another way; Agresti and Min 2005."""
    labels, network, file = np.zeros(20, int), np.zeros((20, 3)), np.zeros((20, 3))
    network[:, 0], file[:, 0] = 1, 1
    file[:3] = [0, 1, 0]
    network[3] = [0, 1, 0]
    network[4], file[4] = [0, 1, 0], [0, 0, 4]
    found = gate.compare(network, file, labels, 0.9)
    assert found.agreement == 15 / 20
    assert found.accuracy == 16 / 20
    assert found.accuracy_drop == pytest.approx(2 / 20)
    assert found.largest_difference == 4
    lost, won, count = 3.5, 1.5, 22
    centre = (lost - won) / count
    deviation = ((lost + won) / count - centre**2) ** 0.5 / count**0.5
    reach = NormalDist().inv_cdf(0.95) * deviation
    assert (found.drop_low, found.drop_high) == pytest.approx((centre - reach, centre + reach))


def shipped(folder: Path, bits: WeightBits) -> tuple[Path, dict[str, np.ndarray], dict[str, WeightBits]]:
    settings = wanted(weights=bits)
    found = made(NETWORKS["graph"], settings)
    model = kept(folder / "model", NETWORKS["graph"], settings, found)
    codes = {name: matrix.numpy() for name, matrix in integers.all_codes(model.network).items()}
    writing.write(model, folder / "file.onnx", 18, {})
    return folder / "file.onnx", codes, found.weights


def flip(path: Path, kind: TensorProto.DataType, packed: bool) -> None:
    """One bit of the largest tensor of this type."""
    model = onnx.load(path)
    inside = {name for node in model.graph.node if node.domain == packing.DOMAIN for name in node.input}
    found = [one for one in model.graph.initializer if one.data_type == kind and (one.name in inside) == packed]
    tensor = max(found, key=lambda one: int(np.prod(one.dims)))
    changed = numpy_helper.to_array(tensor).copy()
    changed.reshape(-1).view(np.uint8)[5] ^= 1
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.save(model, path)


@pytest.mark.parametrize(("bits", "kind", "packed"), [(8, TensorProto.INT8, False), (3, TensorProto.UINT8, True)])
def test_one_bit_that_is_another_closes_the_gate(
    tmp_path: Path, bits: WeightBits, kind: TensorProto.DataType, packed: bool
) -> None:
    path, codes, weights = shipped(tmp_path, bits)
    most = max(len(np.unique(row)) for matrix in codes.values() for row in matrix)
    assert gate.codes("x", path, codes, weights) == most
    flip(path, kind, packed)
    with pytest.raises(Refusal, match=r"x\.onnx does not hold the codes of layer \S+ as they were learnt"):
        gate.codes("x", path, codes, weights)


def test_more_levels_than_bits_can_tell_close_the_gate(tmp_path: Path) -> None:
    path, codes, weights = shipped(tmp_path, 3)
    with pytest.raises(Refusal, match=r"a channel of layer blocks\.0\.conv1 takes 7 values, more than 2 bits can tell"):
        gate.codes("x", path, codes, weights | {"blocks.0.conv1": 2})


@pytest.mark.parametrize(("bits", "most"), [(1, 2), ("ternary", 3), (2, 4), (3, 8), (8, 256)])
def test_levels_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: WeightBits, most: int) -> None:
    """As many as there are, and one more; where there is one bit, zeros lie in a mask."""
    monkeypatch.setattr(gate.running, "folded", lambda path: path)
    for count in (most, most + 1):
        values = np.arange(1, 1 + count) if bits == 1 else np.arange(count)
        codes = {"a": np.array([values, np.zeros(count, int)], np.int16)}
        monkeypatch.setattr(gate.running, "weights", lambda _, codes=codes: codes)
        message = "" if count == most else rf"layer a takes {count} values, more than {bits} bits"
        _refused(message, gate.codes, "x", tmp_path, codes, {"a": bits})


def test_no_drop_is_larger_than_all_of_it() -> None:
    """Agresti and Min's interval would reach further."""
    labels = np.zeros(30, int)
    right, wrong = (np.eye(2)[np.full(30, answer)] for answer in (0, 1))
    found = gate.compare(right, wrong, labels, 0.95)
    assert found.drop_high == 1
    assert gate.compare(wrong, right, labels, 0.95).drop_low == -1
