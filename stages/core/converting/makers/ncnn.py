"""ncnn's two files: a list of layers (.param) and their numbers (.bin), for one picture.

ncnn takes pictures as its own `Mat::from_pixels` makes them: float32, channels first, RGB values 0..255; normalisation
is inside. There is no place for facts: they stand on the card beside the files. float16 is how weights are stored; ncnn
computes in it where the processor can, and in float32 elsewhere.
"""

import math
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from stages.core.converting.makers import protocol
from stages.core.converting.makers.protocol import Answer, Described, Handed

ncnn: Any = import_module("ncnn")  # of another environment, and of this module's own name

Numbers = Mapping[int, int]

INPUT = "images"
CHANNELS_FIRST = [0, 3, 1, 2]
IN, OUT = "in0", "out0"  # as pnnx names them
GIVEN = "float32 channels first, RGB values 0..255, as ncnn::Mat::from_pixels makes them"

MAGIC, WORD = "7767517", 4
TAGS = {0: "float32", 0x01306B47: "float16"}
BYTES = {"float32": 4, "float16": 2}


def float32(handed: Handed, stem: Path) -> None:
    _convert(handed, stem, halves=False)


def float16(handed: Handed, stem: Path) -> None:
    _convert(handed, stem, halves=True)


def _convert(handed: Handed, stem: Path, *, halves: bool) -> None:
    size = handed.facts["image_size"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        onnx.save(with_ncnn_pixels(onnx.load(handed.onnx), size), path)
        files = [f"ncnnparam={stem.with_suffix('.param')}", f"ncnnbin={stem.with_suffix('.bin')}"]
        asked = [str(_pnnx()), str(path), f"inputshape=[1,3,{size},{size}]", f"fp16={int(halves)}", *files]
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not stem.with_suffix(".bin").is_file():
        raise ValueError(f"pnnx ended with status {done.returncode}: {_last(done.stderr)}")
    unknown = {layer.kind for layer in _layers(stem.with_suffix(".param")) if ncnn.layer_to_index(layer.kind) < 0}
    if unknown:
        raise ValueError(f"ncnn has no layer {', '.join(sorted(unknown))}")


def _pnnx() -> Path:
    """Its module would import torch, only to start this program."""
    spec = find_spec("pnnx")
    [folder] = spec.submodule_search_locations if spec and spec.submodule_search_locations else [""]
    return Path(folder) / "pnnx"


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was given"])[-1].strip()


def with_ncnn_pixels(model: ModelProto, size: int) -> ModelProto:
    """In place: what turns stored pictures into float32, channels first, is ncnn's own work before the network."""
    name, turned = INPUT, [0, 1, 2, 3]
    dropped = []
    while True:
        [reader, *others] = [node for node in model.graph.node if name in node.input]
        if others or reader.op_type not in ("Cast", "Transpose"):
            break
        if reader.op_type == "Transpose":
            turned = [turned[axis] for axis in reader.attribute[0].ints]
        dropped.append(reader)
        name = reader.output[0]
    if turned != CHANNELS_FIRST:
        raise ValueError(f"pictures reach the network with axes {turned}, not {CHANNELS_FIRST}")
    for node in dropped:
        model.graph.node.remove(node)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, size, size]))
    return model


def opened(file: Path) -> Answer:
    halves = "float16" in _stored(file)
    network = ncnn.Net()
    network.opt.num_threads = 1
    network.opt.use_vulkan_compute = network.opt.use_bf16_storage = False
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = halves
    if network.load_param(str(file)) or network.load_model(str(file.with_suffix(".bin"))):
        raise ValueError(f"ncnn cannot load {file}")

    def answer(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[1:3]
        extractor = network.create_extractor()
        extractor.input(IN, ncnn.Mat.from_pixels(picture[0], ncnn.Mat.PixelType.PIXEL_RGB, width, height))
        return np.array(extractor.extract(OUT)[1])

    return answer


def describe(file: Path) -> Described:
    stored = _stored(file)
    operators = Counter(layer.kind for layer in _layers(file))
    return Described(
        runtime=f"ncnn {ncnn.__version__}",
        kind=" and ".join(sorted(set(stored))),
        types=Counter(stored),
        operators=operators,
        input=GIVEN,
        transposes=operators["Permute"],
    )


@dataclass(frozen=True)
class Layer:
    kind: str
    numbers: Numbers


@dataclass(frozen=True)
class Array:
    """As many numbers in the .bin. Those of products begin with a word that tells their type, others are float32."""

    length: int
    tagged: bool = False


def _layers(file: Path) -> list[Layer]:
    """kind, name, how many inputs and outputs, their names, and then numbered parameters."""
    magic, _, *lines = file.read_text(encoding="utf-8").splitlines()
    if magic.strip() != MAGIC:
        raise ValueError(f"{file} is no file of ncnn")
    found: list[Layer] = []
    for kind, _, inputs, outputs, *words in (line.split() for line in lines if line.strip()):
        pairs = [word.split("=") for word in words[int(inputs) + int(outputs) :]]
        found.append(Layer(kind, {int(key): int(value) for key, value in pairs if value.lstrip("-").isdigit()}))
    return found


def _stored(file: Path) -> list[str]:
    """The types of weights, product by product: the .bin is read from its first to its last byte."""
    content, at = file.with_suffix(".bin").read_bytes(), 0
    found: list[str] = []
    for array in (array for layer in _layers(file) for array in ARRAYS.get(layer.kind, _nothing)(layer.numbers)):
        name = "float32"
        if array.tagged:
            name = TAGS[int.from_bytes(content[at : at + WORD], "little")]
            at += WORD
            found.append(name)
        at += -(-array.length * BYTES[name] // WORD) * WORD
    if at != len(content):
        raise ValueError(f"{file.with_suffix('.bin')} has {len(content)} bytes, and {at} are numbers of known layers")
    return found


def _nothing(_: Numbers) -> list[Array]:
    return []


def _convolution(numbers: Numbers) -> list[Array]:
    return [Array(numbers[6], tagged=True), *_floats(numbers.get(5), numbers[0])]


def _linear(numbers: Numbers) -> list[Array]:
    return [Array(numbers[2], tagged=True), *_floats(numbers.get(1), numbers[0])]


def _matrices(numbers: Numbers) -> list[Array]:
    """C = A B + C, each of them constant or not; the last in one of five shapes."""
    rows, columns, inner = (numbers.get(key, 0) for key in (7, 8, 9))
    added = [1, rows, rows, rows * columns, columns][numbers.get(10, 0)]
    lengths = {4: rows * inner, 5: columns * inner, 6: added}
    return [Array(length, tagged=True) for constant, length in lengths.items() if numbers.get(constant)]


def _memory(numbers: Numbers) -> list[Array]:
    return [Array(math.prod(numbers.get(key) or 1 for key in (0, 1, 11, 2)))]


def _layer_norm(numbers: Numbers) -> list[Array]:
    return 2 * _floats(numbers.get(2, 1), numbers[0])


def _floats(there: int | None, length: int) -> list[Array]:
    return [Array(length)] if there else []


ARRAYS: Mapping[str, Callable[[Numbers], list[Array]]] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "InnerProduct": _linear,
    "Gemm": _matrices,
    "MemoryData": _memory,
    "LayerNorm": _layer_norm,
    "BatchNorm": lambda numbers: [Array(numbers[0])] * 4,
    "GroupNorm": lambda numbers: 2 * _floats(numbers.get(3, 1), numbers[1]),
    "PReLU": lambda numbers: [Array(numbers[0])],
}


if __name__ == "__main__":
    kinds = {f.__name__: f for f in (float32, float16)}
    protocol.main(convert=kinds, answer=opened, describe=describe)
