"""ExecuTorch's program (.pte) for XNNPACK, on phones: floating point, or the maker's own integers.

Pictures enter as float32 of 0..255, [1, height, width, 3]; in integers, the program's first step gives them codes. The
file tells by itself what it is: its method `lightvision` returns JSON.
"""

# pyright: reportMissingImports=false

import json
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module, resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.core.converting.makers import protocol
from stages.core.converting.makers.protocol import Answer, Described, Handed

Graph = Any
Rewrite = Callable[[torch.fx.Graph, torch.fx.Node], torch.fx.Node]

FACTS, METHOD = "lightvision", "forward"
ATEN = torch.ops.aten
TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "qint8": "int8", "qcint8": "int8", "qint32": "int32"}
TYPES |= {"quint8": "uint8", "qcint32": "int32", "int32": "int32"}
PRODUCTS = frozenset({"XNNConv2d", "XNNDepthwiseConv2d", "XNNFullyConnected"})
MOVES = frozenset({"XNNConvert", "XNNStaticTranspose", "XNNStaticReshape", "XNNStaticSlice", "XNNCopy"})
TRANSPOSES = frozenset({"StaticTranspose", "permute_copy", "transpose_copy"})
NOT_JSON = re.compile(rb":\s*(-?(?:inf|nan))\b")


def float32(handed: Handed, stem: Path) -> None:
    _save(torch.export.load(handed.network).module(), handed, stem)


def int8(handed: Handed, stem: Path) -> None:
    """Ranges are the widest that any picture shows, for weights by channel."""
    quantizers = _library("backends.xnnpack.quantizer.xnnpack_quantizer")
    stepwise = import_module("torchao.quantization.pt2e.quantize_pt2e")
    config = quantizers.get_symmetric_quantization_config(is_per_channel=True)
    network = _rewritten(torch.export.load(handed.network).module(), BEFORE_QUANTIZING)
    network = torch.export.export(network, _example(handed)).module()  # the quantizer asks every node for its shape
    looking = stepwise.prepare_pt2e(network, quantizers.XNNPACKQuantizer().set_global(config))
    with torch.no_grad():
        for picture in handed.calibration:
            looking(_pixels(picture[None]))
    _save(stepwise.convert_pt2e(looking), handed, stem)


def _rewritten(network: torch.fx.GraphModule, same_as: Mapping[Any, Rewrite]) -> torch.fx.GraphModule:
    for node in list(network.graph.nodes):
        if node.target in same_as:
            with network.graph.inserting_before(node):
                node.replace_all_uses_with(same_as[node.target](network.graph, node))
            network.graph.erase_node(node)
    network.recompile()
    return network


def _pooled(graph: torch.fx.Graph, node: torch.fx.Node) -> torch.fx.Node:
    """What averages to one pixel would otherwise be followed by a copy with strides, which no backend takes."""
    picture, size = node.args
    if size != [1, 1]:
        return graph.node_copy(node)
    return graph.call_function(ATEN.mean.dim, (picture, [-1, -2], True))


def _hard_sigmoid(graph: torch.fx.Graph, node: torch.fx.Node) -> torch.fx.Node:
    """Its own form holds whole numbers, each of which would be converted at every call."""
    scaled = graph.call_function(ATEN.mul.Tensor, (node.args[0], 1 / 6))
    shifted = graph.call_function(ATEN.add.Tensor, (scaled, 0.5))
    return graph.call_function(ATEN.hardtanh.default, (shifted, 0.0, 1.0))


def _hard_swish(graph: torch.fx.Graph, node: torch.fx.Node) -> torch.fx.Node:
    return graph.call_function(ATEN.mul.Tensor, (node.args[0], _hard_sigmoid(graph, node)))


BEFORE_QUANTIZING: Mapping[Any, Rewrite] = {  # of what the quantizer knows
    ATEN.hardsigmoid.default: _hard_sigmoid,
    ATEN.hardsigmoid_.default: _hard_sigmoid,
    ATEN.hardswish.default: _hard_swish,
    ATEN.hardswish_.default: _hard_swish,
}
BEFORE_LOWERING: Mapping[Any, Rewrite] = {  # of what the backend takes
    ATEN.adaptive_avg_pool2d.default: _pooled,
    ATEN.hardsigmoid.default: _hard_sigmoid,
    ATEN.hardsigmoid_.default: _hard_sigmoid,
}


def _save(network: torch.fx.GraphModule, handed: Handed, stem: Path) -> None:
    lower = _library("exir").to_edge_transform_and_lower
    partitioner = _library("backends.xnnpack.partition.xnnpack_partitioner").XnnpackPartitioner
    facts = json.dumps(handed.facts | {"input": "float32"}, ensure_ascii=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes to its own developers
        program = torch.export.export(_rewritten(network, BEFORE_LOWERING), _example(handed))
        lowered = lower(program, partitioner=[partitioner()], constant_methods={FACTS: facts})
        stem.with_suffix(".pte").write_bytes(lowered.to_executorch().buffer)


def opened(file: Path) -> Answer:
    _library("extension.pybindings.portable_lib")._unsafe_reset_threadpool(1)  # it has as many as there are cores
    program = _library("runtime").Runtime.get().load_program(file)
    method = program.load_method(METHOD)

    def answer(picture: np.ndarray) -> np.ndarray:
        return method.execute([_pixels(picture)])[0].numpy()

    return answer


def describe(file: Path) -> Described:
    """Operators are those of XNNPACK's graphs inside the file and those beside them; types are those of the weights of
    products, and those that products with weights take."""
    program = _library("exir._serialize._program").deserialize_pte_binary(file.read_bytes()).program
    [plan] = (plan for plan in program.execution_plan if plan.name == METHOD)
    graphs = [_graph(program.backend_delegate_data[part.processed.index].data) for part in plan.delegates]
    taken_over = Counter(_kind_of(node) for graph in graphs for node in graph["xnodes"])
    left = Counter(_kernels(plan))
    products = [pair for graph in graphs for pair in _products(graph)]
    operators = Counter({name.removeprefix("XNN"): count for name, count in taken_over.items()}) + left
    return Described(
        runtime=f"ExecuTorch {version('executorch')}",
        kind=_kind(products, [name for graph in graphs for name in _computed(graph)], left),
        types=Counter(name for pair in products for name in pair),
        operators=operators,
        input=_input(plan),
        transposes=sum(operators[name] for name in TRANSPOSES),
        delegated=taken_over.total() / operators.total(),
    )


def _kind(products: list[tuple[str, str]], computed: list[str], left: Counter[str]) -> str:
    stored = {weights for weights, _ in products}
    if "int8" not in stored:
        return " and ".join(sorted(stored)) or "without weights"
    return "full-integer" if stored == {"int8"} == set(computed) and not left else "partly integer"


def _kernels(plan: Any) -> list[str]:
    """What is computed beside the backend."""
    steps = [step.instr_args for chain in plan.chains for step in chain.instructions]
    return [plan.operators[step.op_index].name.split("::")[-1] for step in steps if hasattr(step, "op_index")]


def _input(plan: Any) -> str:
    given = plan.values[plan.inputs[0]].val
    return {6: "float32", 0: "uint8", 1: "int8"}[int(given.scalar_type)]


def _graph(payload: bytes) -> Graph:
    """XNNPACK's, as the backend will read it, by the schema that lies in the maker's package."""
    serialization = _library("backends.xnnpack.serialization.xnnpack_graph_serialize")
    header = serialization.XNNHeader.from_bytes(payload[: serialization.XNNHeader.EXPECTED_LENGTH])
    end = header.flatbuffer_offset + header.flatbuffer_size
    with tempfile.TemporaryDirectory() as folder:
        schema, graph = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
        schema.write_bytes(
            resources.files("executorch.backends.xnnpack.serialization").joinpath(schema.name).read_bytes()
        )
        graph.write_bytes(payload[header.flatbuffer_offset : end])
        _library("exir._serialize._flatbuffer")._flatc_decompile(folder, str(schema), str(graph))
        return json.loads(NOT_JSON.sub(rb': "\1"', graph.with_suffix(".json").read_bytes()))


def _kind_of(node: Graph) -> str:
    return str(node["xnode_union_type"])


def _values(graph: Graph) -> dict[int, Graph]:
    plain = [value["xvalue_union"].get("tensor_value", value["xvalue_union"]) for value in graph["xvalues"]]
    return {value.get("id_out", 0): value for value in plain}


def _type(value: Graph) -> str:
    name = str(value["datatype"]).removeprefix("xnn_datatype_")
    return str(TYPES.get(name, name))


def _products(graph: Graph) -> list[tuple[str, str]]:
    values = _values(graph)
    ports = [node["xnode_union"] for node in graph["xnodes"] if _kind_of(node) in PRODUCTS]
    pairs = [(values[port.get("filter_id", 0)], values[port.get("input1_id", 0)]) for port in ports]
    return [(_type(weights), _type(taken)) for weights, taken in pairs if weights.get("constant_buffer_idx")]


def _computed(graph: Graph) -> list[str]:
    """Of what every step gives that does more than to move or to convert."""
    values = _values(graph)
    ports = [node["xnode_union"] for node in graph["xnodes"] if _kind_of(node) not in MOVES]
    return [_type(values[port.get("output_id", 0)]) for port in ports]


def _example(handed: Handed) -> tuple[torch.Tensor]:
    size = handed.facts["image_size"]
    return (torch.zeros(1, size, size, 3),)


def _pixels(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).to(torch.float32)


def _library(name: str) -> Any:
    return import_module(f"executorch.{name}")


if __name__ == "__main__":
    kinds = {f.__name__: f for f in (float32, int8)}
    protocol.main(convert=kinds, answer=opened, describe=describe)
