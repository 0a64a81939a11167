"""Weights lie in the file in as many bits as their numbers need: lossless, and decided by the numbers alone.

What gives a weight back are functions of plain ONNX operators inside the file, or a single Cast. They hang on constants
alone, so ONNX Runtime runs them once, when it loads the file, before it chooses kernels: it executes the very graph of
the unpacked file.

Another way to store weights is another function in `FUNCTIONS`, a form beside `_coded`, and its line in `_bits`.
"""

import math
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

DOMAIN, VERSION = "lightvision", 1
MOST_LEVELS = 256
SMALLEST = 64  # bytes: what a node takes at least

# Bits are cut out of their bytes by shifting to the left end, then to the right: BitwiseAnd came with opset 18.
# A byte holds bits of numbers that are an eighth of the tensor apart, so that both shifts run along whole rows; a plane
# for each bit makes their sum a product of matrices. All that has a byte for a number is done before what has four
# A survivor's rank among the bits that are set is its place among the numbers: ONNX Runtime folds CumSum, not NonZero
FUNCTIONS = {
    "bits": """
        <domain: "lightvision", opset_import: ["": 17]>
        bits (planes) => (alone)
        {
            before = Constant <value = uint8[8,1,1] {0, 1, 2, 3, 4, 5, 6, 7}> ()
            others = Constant <value = uint8 {7}> ()
            first = BitShift <direction = "LEFT"> (planes, before)
            alone = BitShift <direction = "RIGHT"> (first, others)
        }""",
    "trimmed": """
        <domain: "lightvision", opset_import: ["": 17]>
        trimmed (padded, shape) => (flat)
        {
            row = Constant <value_ints = [-1]> ()
            start = Constant <value_ints = [0]> ()
            all = Reshape (padded, row)
            count = ReduceProd <keepdims = 1> (shape)
            flat = Slice (all, start, count)
        }""",
    "codes": """
        <domain: "lightvision", opset_import: ["": 17, "lightvision": 1]>
        codes <shape> (planes, levels) => (weight)
        {
            shape = Constant <value_ints : ints = @shape> ()
            powers = Constant <value = uint8[8] {1, 2, 4, 8, 16, 32, 64, 128}> ()
            start = Constant <value_ints = [0]> ()
            width = Shape <end = 1> (planes)
            worth = Slice (powers, start, width)
            alone = lightvision.bits (planes)
            place = MatMulInteger (worth, alone)
            padded = Gather (levels, place)
            flat = lightvision.trimmed (padded, shape)
            weight = Reshape (flat, shape)
        }""",
    "masked": """
        <domain: "lightvision", opset_import: ["": 17, "lightvision": 1]>
        masked <shape> (mask, survivors) => (weight)
        {
            shape = Constant <value_ints : ints = @shape> ()
            axis = Constant <value_int = 0> ()
            none = Constant <value_ints = [0]> ()
            padded = lightvision.bits (mask)
            alone = lightvision.trimmed (padded, shape)
            there = Cast <to = 6> (alone)
            rank = CumSum (there, axis)
            place = Mul (rank, there)
            zero = CastLike (none, survivors)
            numbers = Concat <axis = 0> (zero, survivors)
            flat = Gather (numbers, place)
            weight = Reshape (flat, shape)
        }""",
}

# What a Cast gives back, and the opset that knows it, the narrowest first
NARROWER: dict[int, dict[int, int]] = {
    TensorProto.FLOAT: {
        TensorProto.FLOAT8E4M3FN: 19,
        TensorProto.FLOAT8E5M2: 19,
        TensorProto.FLOAT16: 13,
        TensorProto.BFLOAT16: 13,
    },
    TensorProto.INT32: {TensorProto.INT8: 13, TensorProto.INT16: 13},
}
CODED = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8})


@dataclass(frozen=True)
class Form:
    """One way to store a tensor: what lies in the file, and the nodes that make the tensor of it, in turn."""

    nodes: tuple[NodeProto, ...]
    tensors: tuple[TensorProto, ...]

    @property
    def bytes(self) -> int:
        return GraphProto(node=self.nodes, initializer=self.tensors).ByteSize()

    @property
    def functions(self) -> frozenset[str]:
        return frozenset(node.op_type for node in self.nodes if node.domain == DOMAIN)

    def then(self, node: NodeProto, *tensors: TensorProto) -> "Form":
        return Form((*self.nodes, node), (*self.tensors, *tensors))


def pack(model: ModelProto) -> None:
    """Each tensor in its smallest form, and only where the file becomes smaller, all that unpacks counted in."""
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    large = {at: tensor for at, tensor in enumerate(model.graph.initializer) if _takes(tensor) >= SMALLEST}
    forms = {at: [(form, form.bytes) for form in _forms(tensor, at, opset)] for at, tensor in large.items()}

    def smallest(allowed: frozenset[str]) -> tuple[int, dict[int, Form], ModelProto]:
        chosen = {
            at: min((entry for entry in entries if entry[0].functions <= allowed), key=lambda entry: entry[1])
            for at, entries in forms.items()
        }
        shared = _library(frozenset().union(*(form.functions for form, _ in chosen.values())), opset)
        total = shared.ByteSize() + sum(size for _, size in chosen.values())
        return total, {at: form for at, (form, _) in chosen.items() if form.nodes}, shared

    choices = [smallest(frozenset(some)) for some in ((), ("codes",), ("masked",), ("codes", "masked"))]
    _, chosen, shared = min(choices, key=lambda choice: choice[0])
    _replace(model.graph, chosen)
    model.MergeFrom(shared)


def packed(path: Path) -> int:
    """How many weights of the file are packed."""
    return len(widths(path))


def widths(path: Path) -> dict[str, float]:
    """Bits for each number of each packed weight, its mask counted in; vectors are no weights."""
    unpacking = Unpacking(onnx.load(path))
    shapes = {name: unpacking.shape(name) for name in unpacking.results}
    return {name: unpacking.bits(name) / math.prod(shape) for name, shape in shapes.items() if len(shape) > 1}


def ideal(path: Path) -> int:
    """Bytes of a file whose packed weights take just their bits; all else in it counts as it is."""
    model = onnx.load(path)
    unpacking = Unpacking(model)
    read = {name for node in unpacking.made.values() for name in node.input}
    spent = sum(_takes(tensor) for name, tensor in unpacking.tensors.items() if name in read)
    return model.ByteSize() - spent + -(-sum(unpacking.bits(name) for name in unpacking.results) // 8)


class Unpacking:
    """What a file makes of its constants before anything else."""

    def __init__(self, model: ModelProto) -> None:
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.made = {node.output[0]: node for node in model.graph.node if self._unpacks(node)}
        inner = {name for node in self.made.values() for name in node.input}
        self.results = [name for name in self.made if name not in inner]

    def _unpacks(self, node: NodeProto) -> bool:
        if node.domain == DOMAIN:
            return True
        source = self.tensors.get(node.input[0]) if node.op_type == "Cast" else None
        return source is not None and source.data_type in NARROWER.get(node.attribute[0].i, {})

    def shape(self, name: str) -> list[int]:
        node = self.made.get(name)
        if node is None:
            return list(self.tensors[name].dims)
        return list(node.attribute[0].ints) if node.domain == DOMAIN else self.shape(node.input[0])

    def bits(self, name: str) -> int:
        node, numbers = self.made.get(name), math.prod(self.shape(name))
        if node is None:
            return 8 * _takes(self.tensors[name])
        if node.op_type == "codes":
            return numbers * self.tensors[node.input[0]].dims[0]
        return self.bits(node.input[-1]) + (numbers if node.op_type == "masked" else 0)


def _replace(graph: GraphProto, chosen: dict[int, Form]) -> None:
    nodes = [*(node for form in chosen.values() for node in form.nodes), *graph.node]
    tensors = [tensor for at, tensor in enumerate(graph.initializer) if at not in chosen]
    tensors += [tensor for form in chosen.values() for tensor in form.tensors]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def _forms(tensor: TensorProto, at: int, opset: int) -> Iterator[Form]:
    yield Form((), (tensor,))
    yield from _dense(tensor, at, opset)
    if tensor.data_type in CODED:
        yield from _masked(tensor, at, opset)


def _dense(tensor: TensorProto, at: int, opset: int) -> Iterator[Form]:
    """As many bits for each number."""
    yield from _narrowed(tensor, at, opset)
    if tensor.data_type in CODED:
        yield from _coded(tensor, at)


def _masked(tensor: TensorProto, at: int, opset: int) -> Iterator[Form]:
    """A bit for each number, and the numbers that are not zero, in any dense form."""
    values = numpy_helper.to_array(tensor)
    there = values != 0
    survivors = numpy_helper.from_array(values[there], f"survivors_{at}")
    mask = numpy_helper.from_array(_planes(there.reshape(-1).view(np.uint8), 1), f"mask_{at}")
    node = _call("masked", [mask.name, survivors.name], tensor)
    for form in (Form((), (survivors,)), *_dense(survivors, at, opset)):
        yield form.then(node, mask)


def _coded(tensor: TensorProto, at: int) -> Iterator[Form]:
    """Where each number stands among those that occur, in as many bits as there are doublings of these.

    They are told apart by their bits: -0 is not 0, and what is no number comes back as it was.
    """
    values = numpy_helper.to_array(tensor).reshape(-1)
    raw = values.view(f"u{values.itemsize}")
    if np.unique(raw[: 8 * MOST_LEVELS]).size > MOST_LEVELS:  # most weights in floating point, at once
        return
    levels = np.unique(raw)
    if 0 < levels.size <= MOST_LEVELS:
        bits = max(1, (levels.size - 1).bit_length())
        codes = np.searchsorted(levels, raw).astype(np.uint8)
        planes = numpy_helper.from_array(_planes(codes, bits), f"planes_{at}")
        table = numpy_helper.from_array(levels.view(values.dtype), f"levels_{at}")
        yield Form((_call("codes", [planes.name, table.name], tensor),), (planes, table))


def _narrowed(tensor: TensorProto, at: int, opset: int) -> Iterator[Form]:
    """A smaller type that holds each number exactly."""
    values = numpy_helper.to_array(tensor)
    for narrow, since in NARROWER.get(tensor.data_type, {}).items():
        with np.errstate(over="ignore", invalid="ignore"):
            small = values.astype(helper.tensor_dtype_to_np_dtype(narrow))
            back = small.astype(values.dtype)
        if opset >= since and np.isfinite(back).all() and back.tobytes() == values.tobytes():
            name = f"narrow_{at}"
            node = helper.make_node("Cast", [name], [tensor.name], to=tensor.data_type)
            yield Form((node,), (numpy_helper.from_array(small, name),))


def _planes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Byte i of a plane holds a bit of number i, from the left, then of those that are an eighth of all further on."""
    padded = np.zeros((bits, 8 * -(-codes.size // 8)), np.uint8)
    padded[:, : codes.size] = codes >> np.arange(bits, dtype=np.uint8)[:, None] & 1
    return np.packbits(padded.reshape(bits, 8, -1), axis=1)[:, 0]


def _call(function: str, reads: list[str], makes: TensorProto) -> NodeProto:
    return helper.make_node(function, reads, [makes.name], domain=DOMAIN, shape=makes.dims)


def _takes(tensor: TensorProto) -> int:
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _library(functions: frozenset[str], opset: int) -> ModelProto:
    """What a file needs that calls these functions, and those that they call."""
    if not functions:
        return ModelProto()
    needed = functions | {"bits", "trimmed"}
    return _shared([_function(text, opset) for name, text in FUNCTIONS.items() if name in needed])


def _shared(functions: Iterable[FunctionProto]) -> ModelProto:
    return ModelProto(functions=functions, opset_import=[helper.make_opsetid(DOMAIN, VERSION)])


def _function(text: str, opset: int) -> FunctionProto:
    """Names are for readers of this module: the file gets a letter for each."""
    function = parser.parse_function(text)
    function.opset_import[0].version = opset
    names = [*function.input, *(name for node in function.node for name in node.output)]
    letters = dict(zip(names, string.ascii_letters, strict=False))
    for part in (function, *function.node):
        for of in (part.input, part.output):
            of[:] = [letters[name] for name in of]
    return function
