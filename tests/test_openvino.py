"""OpenVINO's files hold what their names say, in the network's own codes, and answer as the network does."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from stages.core.converting import asking, environments, table
from stages.core.converting.makers.openvino_graph import held
from stages.core.converting.makers.protocol import Handed
from stages.core.shipping import running
from tests import odd_networks
from tests.integer_networks import FACTS
from tests.odd_networks import PRODUCTS

KINDS = ("float32", "float16", "int8")


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Handed:
    return odd_networks.hand_over(tmp_path_factory.mktemp("openvino") / "handed")


@pytest.fixture(scope="module")
def made(handed: Handed) -> dict[str, Path]:
    environments.build("openvino")
    for kind in KINDS:
        asking.convert("openvino", handed.folder, handed.folder / kind, kind)
    return {kind: handed.folder / f"{kind}.xml" for kind in KINDS}


def test_what_holds_the_runtime_back_changes_no_answer(handed: Handed, tmp_path: Path) -> None:
    model = onnx.load(handed.integers)
    before = [node.op_type for node in model.graph.node]
    onnx.save(held(model), tmp_path / "held.onnx")
    after = [node.op_type for node in model.graph.node]
    assert (after.count("Abs"), after.count("MaxPool")) == (1, 1)
    assert len(after) == len(before) + 2
    assert after.index("Abs") == after.index("Cast") + 1
    stored = {tensor.name for tensor in model.graph.initializer}
    weights = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    assert [len(node.input) for node in weights] == [2] * 2 * PRODUCTS  # of each product the weight and the bias
    shown = odd_networks.shown()
    expected = running.logits(handed.integers, shown)
    np.testing.assert_allclose(running.logits(tmp_path / "held.onnx", shown), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "apart"), [("float32", 1e-5), ("float16", 2e-2)])
def test_floating_point_answers_as_the_shipped_file(
    made: dict[str, Path], handed: Handed, kind: str, apart: float
) -> None:
    answers, times = asking.answers("openvino", made[kind], _stored(handed), timed=True)
    expected = running.logits(handed.onnx, odd_networks.shown())
    np.testing.assert_allclose(answers, expected, atol=apart)
    assert kind == "float32" or np.abs(answers - expected).max() > 1e-5  # halves are no floats
    assert len(times) >= 10


@pytest.mark.slow
def test_integers_answer_as_the_network_of_integers(made: dict[str, Path], handed: Handed) -> None:
    """A code here and there may be rounded to its neighbour, and nothing is so as a rule."""
    answers, _ = asking.answers("openvino", made["int8"], _stored(handed))
    expected = running.logits(handed.integers, odd_networks.shown())
    off = np.abs(answers - expected)
    assert np.median(off) < 1e-5
    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_what_its_name_says(made: dict[str, Path], kind: str) -> None:
    found = asking.describe("openvino", made[kind])
    target = table.TARGETS[f"openvino_{kind}"]
    assert not target.rule(found)
    assert found["input"] == "uint8"
    assert found["runtime"].startswith("OpenVINO 20")
    others = [one for one in KINDS if one != kind]
    assert all(table.TARGETS[f"openvino_{other}"].rule(found) for other in others)


@pytest.mark.slow
def test_the_codes_lie_in_the_file_and_are_multiplied_as_integers(made: dict[str, Path], handed: Handed) -> None:
    codes = [array for array in odd_networks.weights(handed.integers) if array.dtype == np.int8]
    content = made["int8"].with_suffix(".bin").read_bytes()
    assert len(codes) == PRODUCTS
    assert all(array.tobytes() in content for array in codes)
    found = asking.describe("openvino", made["int8"])
    assert found["kind"] == "full-integer"
    assert found["types"] == {"int8": PRODUCTS, "uint8": PRODUCTS}


@pytest.mark.slow
def test_halves_take_half(made: dict[str, Path]) -> None:
    whole, half = (made[kind].with_suffix(".bin").stat().st_size for kind in ("float32", "float16"))
    assert half < 0.6 * whole


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_tells_by_itself_what_it_is(made: dict[str, Path], kind: str) -> None:
    told = ElementTree.parse(made[kind]).find("rt_info/lightvision")  # noqa: S314 - our own file
    assert told is not None
    facts = {entry.tag: json.loads(entry.get("value", "")) for entry in told}
    assert tuple(facts["classes"]) == FACTS.classes
    assert (facts["image_size"], facts["fit"]) == (FACTS.image_size, FACTS.fit)
    assert (tuple(facts["mean"]), tuple(facts["std"])) == (FACTS.mean, FACTS.std)


def _stored(handed: Handed) -> Path:
    path = handed.folder / "shown.npy"
    np.save(path, odd_networks.shown())
    return path
