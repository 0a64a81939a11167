"""Every target: who makes it, from which network, and what its file must hold. Imports nothing of what it names.

A rule takes what a maker read off the file, and says what is wrong with it, or nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Found = Mapping[str, Any]  # as protocol.Described has it
Rule = Callable[[Found], str]
Kind = Literal["floating", "integer"]

MOSTLY = 0.9  # of the operators
HALF = 0.5  # of the tensors at least: a small network is pixels, their normalisation and logits for a good part
HALVES = frozenset({"float16", "bfloat16"})
BYTES = frozenset({"int8", "uint8"})


@dataclass(frozen=True)
class Maker:
    """`module` runs as a process; it needs `pieces` of what is handed over, and an environment of its own or none."""

    module: str
    pieces: tuple[str, ...]
    environment: bool = True


@dataclass(frozen=True)
class Target:
    """`kind` is the maker's word for it, `gate` says which tolerances hold; `of` is the network it is compared with,
    `integers` that only a network of integers has such a file."""

    maker: str
    kind: str
    suffix: str
    of: Literal["pruned", "quantized"]
    gate: Kind
    rule: Rule
    integers: bool = False


def float32(found: Found) -> str:
    return _kind(found, "float32") or _none(found, HALVES)


def float16(found: Found) -> str:
    """Arithmetic too: what flows is counted beside the weights."""
    return _kind(found, "float16") or _share(found, HALVES)


def as_exported(_: Found) -> str:
    """The same bytes: what they hold is what export has proved, whatever numbers quantize was asked for."""
    return ""


def integer(found: Found) -> str:
    """With layers in floating point where quantize was asked to keep them so."""
    return _some(found, BYTES) if found["kind"] in ("full-integer", "partly integer") else _kind(found, "full-integer")


def dynamic(found: Found) -> str:
    """Weights are integers, what flows is not."""
    return _kind(found, "dynamic-range") or _some(found, frozenset({"int8"}))


def full_integer(found: Found) -> str:
    return _kind(found, "full-integer") or _some(found, BYTES) or _share(found, BYTES | {"int32", "int64"})


def delegated(rule: Rule) -> Rule:
    """And a faster backend takes nearly all of it."""

    def both(found: Found) -> str:
        share = found["delegated"]
        wrong = share is None or share < MOSTLY
        return rule(found) or (f"its backend takes {share} of its operators, not {MOSTLY:.0%}" if wrong else "")

    return both


def _kind(found: Found, wanted: str) -> str:
    return "" if found["kind"] == wanted else f"it is {found['kind']}, not {wanted}"


def _none(found: Found, types: frozenset[str]) -> str:
    there = sorted(name for name in types if found["types"].get(name))
    return f"it holds tensors of {', '.join(there)}" if there else ""


def _some(found: Found, types: frozenset[str]) -> str:
    there = any(found["types"].get(name) for name in types)
    return "" if there else f"it holds no tensor of {' or '.join(sorted(types))}"


def _share(found: Found, types: frozenset[str]) -> str:
    """Numbers of shapes and axes are nobody's arithmetic, and are `int64` in most formats."""
    counted = {name: count for name, count in found["types"].items() if name != "int64" or name in types}
    share = sum(counted.get(name, 0) for name in types) / max(1, sum(counted.values()))
    return "" if share >= HALF else f"only {share:.0%} of its tensors are of {', '.join(sorted(types))}"


MAKERS: Mapping[str, Maker] = {
    "onnx_runtime": Maker(
        "stages.core.converting.makers.onnx_runtime", ("onnx", "integers", "shipped", "calibration"), environment=False
    ),
    "torch_program": Maker("stages.core.converting.makers.torch_program", ("program",), environment=False),
    "litert": Maker("stages.core.converting.makers.litert", ("network", "calibration")),
    "executorch": Maker("stages.core.converting.makers.executorch", ("network", "calibration")),
    "openvino": Maker("stages.core.converting.makers.openvino", ("onnx", "integers")),
    "ncnn": Maker("stages.core.converting.makers.ncnn", ("onnx",)),
}

TARGETS: Mapping[str, Target] = {
    "onnx_float32": Target("onnx_runtime", "float32", ".onnx", "pruned", "floating", float32),
    "onnx_packed": Target("onnx_runtime", "packed", ".onnx", "quantized", "integer", as_exported),
    "onnx_float16": Target("onnx_runtime", "float16", ".onnx", "pruned", "floating", float16),
    "ort_float32": Target("onnx_runtime", "ort_float32", ".ort", "pruned", "floating", float32),
    "ort_int8": Target("onnx_runtime", "ort_int8", ".ort", "quantized", "integer", integer, integers=True),
    "torch_float32": Target("torch_program", "float32", ".pt2", "pruned", "floating", float32),
    "litert_float32": Target("litert", "float32", ".tflite", "pruned", "floating", float32),
    "litert_float16": Target("litert", "float16", ".tflite", "pruned", "floating", float16),
    "litert_dynamic": Target("litert", "dynamic", ".tflite", "pruned", "integer", dynamic),
    "litert_int8": Target("litert", "int8", ".tflite", "pruned", "integer", full_integer),
    "executorch_float32": Target("executorch", "float32", ".pte", "pruned", "floating", delegated(float32)),
    "executorch_int8": Target("executorch", "int8", ".pte", "pruned", "integer", delegated(full_integer)),
    "openvino_float32": Target("openvino", "float32", ".xml", "pruned", "floating", float32),
    "openvino_float16": Target("openvino", "float16", ".xml", "pruned", "floating", float16),
    "openvino_int8": Target("openvino", "int8", ".xml", "quantized", "integer", integer, integers=True),
    "ncnn_float32": Target("ncnn", "float32", ".param", "pruned", "floating", float32),
    "ncnn_float16": Target("ncnn", "float16", ".param", "pruned", "floating", float16),
}
