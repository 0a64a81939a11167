"""Weights that are mostly zeros lie in the file as a bit for each, and those that are no zeros.

A function of plain ONNX operators inside the file gives the weight back. It hangs on constants alone, so ONNX Runtime
runs it once, when it loads the file, before it chooses kernels: it executes the very graph of the unpacked file.

Another way to store weights is another function beside this one, with what it reads and the text of its operators.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

DOMAIN, VERSION = "lightvision", 1

# Bits are cut out of their bytes by shifting to the left end, then to the right: BitwiseAnd came with opset 18.
# Each bit's rank among those that are set is its place among the numbers: ONNX Runtime folds CumSum, and not NonZero
MASKED = """
<domain: "lightvision", opset_import: ["": 17]>
masked <shape> (mask, numbers) => (weight)
{
    column = Constant <value_ints = [-1, 1]> ()
    before = Constant <value = uint8[8] {0, 1, 2, 3, 4, 5, 6, 7}> ()
    others = Constant <value = uint8 {7}> ()
    row = Constant <value_ints = [-1]> ()
    start = Constant <value_ints = [0]> ()
    axis = Constant <value_int = 0> ()
    shape = Constant <value_ints : ints = @shape> ()
    bytes = Reshape (mask, column)
    first = BitShift <direction = "LEFT"> (bytes, before)
    alone = BitShift <direction = "RIGHT"> (first, others)
    padded = Reshape (alone, row)
    count = ReduceProd <keepdims = 1> (shape)
    bits = Slice (padded, start, count)
    there = Cast <to = 6> (bits)
    rank = CumSum (there, axis)
    place = Mul (rank, there)
    flat = Gather (numbers, place)
    weight = Reshape (flat, shape)
}
"""


@dataclass(frozen=True)
class Packed:
    """What takes the place of a weight: the node that makes it, what this one reads, and the bytes that this spares."""

    node: NodeProto
    tensors: tuple[TensorProto, ...]
    spared: int


def pack(model: ModelProto) -> None:
    """Wherever the file becomes smaller, all that unpacks counted in; vectors stay, they are no weights."""
    matrices = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1]
    all_packed = {tensor.name: masked(tensor, at) for at, tensor in enumerate(matrices)}
    chosen = {name: weight for name, weight in all_packed.items() if weight.spared > 0}
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    shared = ModelProto(functions=[_function(opset)], opset_import=[helper.make_opsetid(DOMAIN, VERSION)])
    if sum(weight.spared for weight in chosen.values()) <= shared.ByteSize():
        return
    graph = model.graph
    nodes = [*(weight.node for weight in chosen.values()), *graph.node]
    tensors = [tensor for tensor in graph.initializer if tensor.name not in chosen]
    tensors += [tensor for weight in chosen.values() for tensor in weight.tensors]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    model.MergeFrom(shared)


def masked(tensor: TensorProto, number: int) -> Packed:
    """Its numbers begin with the zero that every empty place reads."""
    weight = numpy_helper.to_array(tensor)
    there = weight != 0
    numbers = np.concatenate([np.zeros(1, weight.dtype), weight[there]])
    mask, kept = f"mask_{number}", f"numbers_{number}"
    node = helper.make_node("masked", [mask, kept], [tensor.name], domain=DOMAIN, shape=weight.shape)
    tensors = numpy_helper.from_array(np.packbits(there), mask), numpy_helper.from_array(numbers, kept)
    before, after = GraphProto(initializer=[tensor]), GraphProto(node=[node], initializer=tensors)
    return Packed(node, tensors, before.ByteSize() - after.ByteSize())


def packed(path: Path) -> int:
    """How many weights of the file are packed."""
    return sum(node.domain == DOMAIN for node in onnx.load(path).graph.node)


def _function(opset: int) -> FunctionProto:
    function = parser.parse_function(MASKED)
    function.opset_import[0].version = opset
    return function
