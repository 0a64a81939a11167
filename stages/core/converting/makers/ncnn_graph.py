"""A network that takes pictures as ncnn gives them: float32, channels first."""

from onnx import ModelProto, TensorProto, helper

INPUT = "images"
CHANNELS_FIRST = [0, 3, 1, 2]


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
