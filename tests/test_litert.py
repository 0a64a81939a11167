"""LiteRT's files hold what their names say, and answer as the network; its own interpreter reads them, too."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.converting import asking, environments, table
from stages.core.converting.makers.protocol import Handed
from tests import odd_networks
from tests.integer_networks import FACTS, SIZE
from tests.odd_networks import PRODUCTS

pytestmark = pytest.mark.slow
KINDS = ("float32", "float16", "dynamic", "int8")
LOOK = """
import json, sys
from ai_edge_litert.interpreter import Interpreter, OpResolverType
plain = Interpreter(sys.argv[1], experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
plain.allocate_tensors()
told = lambda tensor: [tensor["name"], tensor["dtype"].__name__, [float(x) for x in tensor["quantization_parameters"]
    ["scales"]], [int(x) for x in tensor["quantization_parameters"]["zero_points"]], [int(x) for x in tensor["shape"]]]
tensors = {tensor["index"]: told(tensor) for tensor in plain.get_tensor_details()}
steps = [[step["op_name"], [tensors[i] for i in step["inputs"] if i in tensors]] for step in plain._get_ops_details()]
ports = [[told(tensor) for tensor in found] for found in (plain.get_input_details(), plain.get_output_details())]
names = plain.get_signature_list()["serving_default"]
print(json.dumps({"tensors": list(tensors.values()), "steps": steps, "ports": ports, "names": names}))
"""


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Handed:
    return odd_networks.hand_over_program(tmp_path_factory.mktemp("litert") / "handed")


@pytest.fixture(scope="module")
def made(handed: Handed) -> dict[str, Path]:
    environments.build("litert")
    for kind in KINDS:
        asking.convert("litert", handed.folder, handed.folder / kind, kind)
    return {kind: handed.folder / f"{kind}.tflite" for kind in KINDS}


@pytest.fixture(scope="module")
def seen(made: dict[str, Path]) -> dict[str, Any]:
    """By LiteRT's interpreter."""
    command = [str(environments.python("litert")), "-c", LOOK]
    answers = {
        kind: subprocess.run([*command, str(path)], capture_output=True, text=True) for kind, path in made.items()
    }
    return {kind: json.loads(answer.stdout) for kind, answer in answers.items()}


@pytest.mark.parametrize(("kind", "apart"), [("float32", 1e-6), ("float16", 2e-3), ("dynamic", 4e-2), ("int8", 4e-2)])
def test_it_answers_as_the_network(made: dict[str, Path], handed: Handed, kind: str, apart: float) -> None:
    """In shares of the widest logit."""
    expected = np.load(handed.folder / "answers.npy")
    np.save(handed.folder / "shown.npy", odd_networks.shown())
    answers, times = asking.answers("litert", made[kind], handed.folder / "shown.npy", timed=True)
    off = np.abs(answers - expected).max() / np.abs(expected).max()
    assert off < apart
    assert kind == "float32" or off > 1e-5
    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.95
    assert len(times) >= 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_what_its_name_says(made: dict[str, Path], seen: dict[str, Any], kind: str) -> None:
    found = asking.describe("litert", made[kind])
    assert not table.TARGETS[f"litert_{kind}"].rule(found)
    assert all(table.TARGETS[f"litert_{other}"].rule(found) for other in KINDS if other != kind)
    steps = [name for name, _ in seen[kind]["steps"]]
    assert found["operators"] == {name: steps.count(name) for name in steps}
    assert (found["transposes"], steps.count("TRANSPOSE")) == (0, 0)
    products = [name for name in steps if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert len(products) == PRODUCTS
    assert steps.count("MUL") == 1  # of pixels: the batch norm is in a convolution
    assert found["input"] == seen[kind]["ports"][0][0][1]
    assert sum(found["types"].values()) == 2 * PRODUCTS


def test_in_full_integers_nothing_is_a_float_and_a_pixel_is_its_own_code(seen: dict[str, Any]) -> None:
    assert {kind for _, kind, *_ in seen["int8"]["tensors"]} == {"int8", "int32"}
    [[_, kind, scales, zeros, shape]], [[_, answer, *_]] = seen["int8"]["ports"]
    assert (kind, scales, zeros, shape, answer) == ("int8", [1.0], [-128], [1, SIZE, SIZE, 3], "int8")


@pytest.mark.parametrize("kind", ["dynamic", "int8"])
def test_integer_weights_have_a_scale_for_each_channel(seen: dict[str, Any], kind: str) -> None:
    axes = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
    weights = [(tensors[1], axes[name]) for name, tensors in seen[kind]["steps"] if name in axes]
    assert [tensor[1] for tensor, _ in weights] == ["int8"] * PRODUCTS
    channels = [tensor[4][axis] for tensor, axis in weights]
    assert sorted(channels) == sorted([7, 21, 21, 7, 13, len(FACTS.classes)])
    assert [len(tensor[2]) for tensor, _ in weights] == channels


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_tells_its_facts(made: dict[str, Path], seen: dict[str, Any], handed: Handed, kind: str) -> None:
    content = made[kind].read_bytes()
    start = content.index(b'{"classes"')
    facts = json.JSONDecoder().raw_decode(content[start:].decode(errors="replace"))[0]
    assert facts == handed.facts | {"input": "int8" if kind == "int8" else "float32"}
    assert b"lightvision" in content
    assert b"FromPixels" not in content
    assert seen[kind]["names"] == {"inputs": ["images"], "outputs": ["logits"]}
