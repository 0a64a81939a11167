"""ncnn's files, read without ncnn: which layers there are, and in what type their weights are stored."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Numbers = Mapping[int, int]  # parameters of a layer, which have numbers for names

MAGIC, WORD = "7767517", 4
TAGS = {0: "float32", 0x01306B47: "float16"}
BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class Layer:
    kind: str
    numbers: Numbers


@dataclass(frozen=True)
class Array:
    """As many numbers in the .bin. Those of products begin with a word that tells their type, others are float32."""

    length: int
    tagged: bool = False


def layers(file: Path) -> list[Layer]:
    """kind, name, how many inputs and outputs, their names, and then numbered parameters."""
    magic, _, *lines = file.read_text(encoding="utf-8").splitlines()
    if magic.strip() != MAGIC:
        raise ValueError(f"{file} is no file of ncnn")
    found: list[Layer] = []
    for kind, _, inputs, outputs, *words in (line.split() for line in lines if line.strip()):
        pairs = [word.split("=") for word in words[int(inputs) + int(outputs) :]]
        found.append(Layer(kind, {int(key): int(value) for key, value in pairs if value.lstrip("-").isdigit()}))
    return found


def stored(file: Path) -> list[str]:
    """The types of weights, product by product: the .bin is read from its first to its last byte."""
    content, at = file.with_suffix(".bin").read_bytes(), 0
    found: list[str] = []
    for array in (array for layer in layers(file) for array in ARRAYS.get(layer.kind, _nothing)(layer.numbers)):
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
