"""What a graph computes, step by step: on integers or in floating point."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, NodeProto

INTEGER_KERNELS = frozenset(
    {
        "QLinearConv",
        "QGemm",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
    }
)
FLOAT_KERNELS = frozenset(
    {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits", "Einsum", "ConvTranspose"}
)
PRODUCTS = INTEGER_KERNELS | FLOAT_KERNELS
ADDITIONS = frozenset({"Add", "QLinearAdd", "Sum", "SkipLayerNormalization"})
MEANS = frozenset({"ReduceMean", "QLinearReduceMean"})
KINDS = ("products", "additions", "pooling", "others")
FLOATING = ("float", "double", "bfloat")
SHAPES = frozenset({"int64", "bool"})

Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Operators:
    """How many steps of which operator compute on integers and how many in floating point, by KINDS.

    An addition is one of two activations, as at the end of a residual block. `conversions` between integers and
    floating point are left over among the products; those at the `ends`, of pictures and of logits, are needed.
    """

    integer: Counts
    floating: Counts
    conversions: dict[str, int]
    ends: dict[str, int]
    first_is_integer: bool
    last_is_integer: bool


def count(graph: GraphProto, types: Mapping[str, str]) -> Operators:
    """`types` are those of all that flows; what only counts shapes is no step."""
    constants, products = _constants(graph), _products(graph)
    before, after = _leading_to(graph, products), _following(graph, products)
    used = {integer: {kind: Counter[str]() for kind in KINDS} for integer in (True, False)}
    conversions, ends = Counter[str](), Counter[str]()
    for node in graph.node:
        flowing = [name for name in node.input if name and name not in constants]
        reads, writes = _numbers(flowing or node.input[:1], types), _numbers(node.output[:1], types)
        if not writes:
            continue
        integer = not (reads or writes)[0].startswith(FLOATING)
        if node.output[0] in products:
            used[node.op_type in INTEGER_KERNELS]["products"][node.op_type] += 1
            if node.op_type in FLOAT_KERNELS and not constants.isdisjoint(node.input[:2]) and len(flowing) > 1:
                used[False]["additions"][node.op_type] += 1  # of a residual block, fused into its last product
        elif integer == writes[0].startswith(FLOATING):
            between = node.output[0] in before and not (flowing and after.isdisjoint(flowing))
            (conversions if between else ends)[node.op_type] += 1
        else:
            used[integer][_kind(node, len(flowing))][node.op_type] += 1
    first = [node for node in graph.node if node.output[0] in products and after.isdisjoint(node.input)]
    last = [node for node in graph.node if node.output[0] in products and before.isdisjoint(node.output)]
    return Operators(
        integer={kind: dict(counts) for kind, counts in used[True].items()},
        floating={kind: dict(counts) for kind, counts in used[False].items()},
        conversions=dict(conversions),
        ends=dict(ends),
        first_is_integer=_all_integer(first),
        last_is_integer=_all_integer(last),
    )


def is_product(node: NodeProto, scales: Container[str]) -> bool:
    """What only scales its channels is none: ONNX Runtime writes a BatchNorm so, if no convolution stands before it."""
    return node.op_type in INTEGER_KERNELS or (node.op_type in FLOAT_KERNELS and node.input[1] not in scales)


def rows(node: NodeProto, at: int, weight: np.ndarray) -> np.ndarray:
    """One for each channel that the product gives, of all that is summed up for it; the weight is its input `at`."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type in {"Conv", "ConvInteger"}:
        axis = 0
    elif node.op_type == "ConvTranspose":
        axis = 1
    elif at == 1:
        axis = weight.ndim - (2 if attributes.get("transB") else 1)
    else:
        axis = weight.ndim - (1 if attributes.get("transA") else 2)
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def scales(graph: GraphProto) -> frozenset[str]:
    return frozenset(t.name for t in graph.initializer if len(t.dims) == 4 and list(t.dims[1:]) == [1, 1, 1])


def _constants(graph: GraphProto) -> set[str]:
    """What hangs on nothing that flows."""
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # each node after those that it reads
        if all(name in found for name in node.input if name):
            found.update(node.output)
    return found


def _products(graph: GraphProto) -> set[str]:
    scaling = scales(graph)
    return {node.output[0] for node in graph.node if is_product(node, scaling)}


def _following(graph: GraphProto, products: set[str]) -> set[str]:
    found = set(products)
    for node in graph.node:
        if not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _leading_to(graph: GraphProto, products: set[str]) -> set[str]:
    found = set[str]()
    for node in reversed(graph.node):
        if not found.isdisjoint(node.output) or not products.isdisjoint(node.output):
            found.update(node.input)
    return found


def _numbers(names: Iterable[str], types: Mapping[str, str]) -> list[str]:
    return [types[name] for name in names if types[name] not in SHAPES]


def _kind(node: NodeProto, flowing: int) -> str:
    if node.op_type in ADDITIONS and flowing > 1:
        return "additions"
    return "pooling" if "Pool" in node.op_type or node.op_type in MEANS else "others"


def _all_integer(nodes: list[NodeProto]) -> bool:
    return bool(nodes) and all(node.op_type in INTEGER_KERNELS for node in nodes)
