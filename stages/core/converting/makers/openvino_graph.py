"""A network of integers, said so that OpenVINO rounds where the network rounds, and nowhere else.

Each change leaves every number as it is: ONNX Runtime answers the same before and after.
"""

from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

INPUT = "images"


def held(model: ModelProto) -> ModelProto:
    """In place."""
    _without_zeros(model.graph)
    _hold_pixels(model.graph)
    _hold_branches(model.graph)
    return model


def _without_zeros(graph: GraphProto) -> None:
    """Zero points of weights that are zero, where layers share them, make the runtime compute products as floats."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored and len(node.input) > 2:
            zero_point = stored.get(node.input[2])
            if zero_point is not None and not zero_point.any():
                del node.input[2]


def _hold_pixels(graph: GraphProto) -> None:
    """The runtime would take pixels for the codes of the first layer's input, which differ by one here and there. What
    it does not look through, and changes nothing, keeps it from that."""
    reached = {INPUT}
    for node in list(graph.node):
        if node.op_type == "Transpose" and reached.intersection(node.input):
            reached.update(node.output)
        elif node.op_type == "Cast" and reached.intersection(node.input):
            _insert_after(graph, node, "Abs")


def _hold_branches(graph: GraphProto) -> None:
    """The runtime would add the unrounded result of a convolution to the other branch."""
    makers = {name: node for node in graph.node for name in node.output}
    added = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear" and node.output[0] in added]:
        quantized = makers.get(node.input[0])
        if quantized and quantized.input[0] in makers and makers[quantized.input[0]].op_type == "Conv":
            _insert_after(graph, node, "MaxPool", kernel_shape=[1, 1])


def _insert_after(graph: GraphProto, node: NodeProto, kind: str, **attributes: Any) -> None:
    name = node.output[0]
    node.output[0] = f"{name}/held"
    graph.node.insert(list(graph.node).index(node) + 1, helper.make_node(kind, [node.output[0]], [name], **attributes))
