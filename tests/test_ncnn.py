"""ncnn's files hold what their names say, and answer as the shipped file; what tells that is read without ncnn."""

import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from stages.core.converting import asking, environments, table
from stages.core.converting.makers import ncnn_files
from stages.core.converting.makers.ncnn_graph import with_ncnn_pixels
from stages.core.converting.makers.protocol import Handed
from stages.core.running.errors import Refusal
from stages.core.shipping import running
from tests import odd_networks
from tests.integer_networks import SIZE
from tests.odd_networks import PRODUCTS

KINDS = ("float32", "float16")
PARAM = """7767517
4 4
Input            in0    0 1 in0
MemoryData       scale  0 1 1 0=1 1=1 2=3
Convolution      conv   1 1 in0 2 0=5 1=3 5=1 6=45 9=1
Gemm             gemm   1 1 2 out0 0=1.000000e+00 4=0 5=1 6=1 7=2 8=3 9=5 10=4
"""


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory) -> Handed:
    return odd_networks.hand_over(tmp_path_factory.mktemp("ncnn") / "handed")


@pytest.fixture(scope="module")
def made(handed: Handed) -> dict[str, Path]:
    environments.build("ncnn")
    for kind in KINDS:
        asking.convert("ncnn", handed.folder, handed.folder / kind, kind)
    return {kind: handed.folder / f"{kind}.param" for kind in KINDS}


def test_types_are_read_off_the_words_before_the_weights(tmp_path: Path) -> None:
    _write(tmp_path, convolution="e")
    assert ncnn_files.stored(tmp_path / "made.param") == ["float16", "float32", "float32"]
    _write(tmp_path, convolution="f")
    assert ncnn_files.stored(tmp_path / "made.param") == ["float32"] * 3


def test_numbers_that_no_layer_reads_are_not_passed_over(tmp_path: Path) -> None:
    _write(tmp_path, convolution="e", more=b"four")
    with pytest.raises(ValueError, match="bytes, and"):
        ncnn_files.stored(tmp_path / "made.param")


def test_the_network_begins_where_ncnn_hands_over_its_pixels(handed: Handed, tmp_path: Path) -> None:
    onnx.save(with_ncnn_pixels(onnx.load(handed.onnx), SIZE), tmp_path / "cut.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "cut.onnx")
    [given] = session.get_inputs()
    assert (given.type, given.shape) == ("tensor(float)", [1, 3, SIZE, SIZE])
    picture = odd_networks.shown(1)
    answer = np.asarray(session.run(None, {given.name: picture.transpose(0, 3, 1, 2).astype(np.float32)})[0])
    np.testing.assert_allclose(answer, running.logits(handed.onnx, picture), atol=1e-6)


def test_pixels_that_reach_the_network_otherwise_are_refused(handed: Handed) -> None:
    model = onnx.load(handed.onnx)
    [transpose] = [node for node in model.graph.node if node.op_type == "Transpose"]
    transpose.attribute[0].ints[:] = [0, 3, 2, 1]
    with pytest.raises(ValueError, match=r"axes \[0, 3, 2, 1\]"):
        with_ncnn_pixels(model, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "apart"), [("float32", 1e-5), ("float16", 2e-2)])
def test_it_answers_as_the_shipped_file(made: dict[str, Path], handed: Handed, kind: str, apart: float) -> None:
    np.save(handed.folder / "shown.npy", odd_networks.shown())
    answers, times = asking.answers("ncnn", made[kind], handed.folder / "shown.npy", timed=True)
    expected = running.logits(handed.onnx, odd_networks.shown())
    np.testing.assert_allclose(answers, expected, atol=apart)
    assert kind == "float32" or np.abs(answers - expected).max() > 1e-5  # halves are no floats
    assert len(times) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_what_its_name_says(made: dict[str, Path], kind: str) -> None:
    found = asking.describe("ncnn", made[kind])
    assert not table.TARGETS[f"ncnn_{kind}"].rule(found)
    [other] = [one for one in KINDS if one != kind]
    assert table.TARGETS[f"ncnn_{other}"].rule(found)
    assert found["types"] == {kind: PRODUCTS}
    assert found["operators"]["ConvolutionDepthWise"] == 1
    assert "0..255" in found["input"]


@pytest.mark.slow
def test_numbers_lie_in_the_file_as_they_are_and_halves_rounded(made: dict[str, Path], handed: Handed) -> None:
    kernels = [array for array in odd_networks.weights(handed.onnx) if array.size > 3]
    assert len(kernels) == PRODUCTS
    for kind in KINDS:
        content = made[kind].with_suffix(".bin").read_bytes()
        assert all(array.astype(kind).tobytes() in content for array in kernels)


@pytest.mark.slow
def test_a_layer_that_ncnn_lacks_is_named(made: dict[str, Path], handed: Handed, tmp_path: Path) -> None:
    model = onnx.load(handed.onnx)
    [*_, last] = model.graph.node
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Det", ["before"], ["logits"]))
    folder = tmp_path / "handed"
    folder.mkdir()
    onnx.save(model, folder / "network.onnx")
    (folder / "handed.json").write_bytes((handed.folder / "handed.json").read_bytes())
    with pytest.raises(Refusal, match="ncnn cannot convert"):
        asking.convert("ncnn", folder, tmp_path / "none", "float32")


def _write(folder: Path, convolution: str, more: bytes = b"") -> None:
    """A scale; filters in the type of that letter, which fills up a word, with a bias; a matrix with what is added."""
    half = convolution == "e"
    filters = (
        struct.pack("<I", 0x01306B47 if half else 0) + struct.pack(f"<45{convolution}", *[1.0] * 45) + b"\0\0" * half
    )
    plain = [struct.pack("<I", 0) + struct.pack(f"<{count}f", *[1.0] * count) for count in (15, 3)]
    content = struct.pack("<3f", 1, 2, 3) + filters + struct.pack("<5f", *[0.0] * 5) + b"".join(plain) + more
    (folder / "made.param").write_text(PARAM)
    (folder / "made.bin").write_bytes(content)
