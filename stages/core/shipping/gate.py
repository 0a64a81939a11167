"""No file leaves that does not answer as the network it was made from, or does not hold the numbers it is said to."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.core import params, statistics
from stages.core.params import WeightBits
from stages.core.running.errors import Refusal
from stages.core.shipping import running

Facts = Mapping[str, float | int]
DYNAMIC = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")


@dataclass(frozen=True)
class Parity:
    """A file beside its network, on the same pictures; the drop with its interval."""

    agreement: float
    accuracy: float
    accuracy_drop: float
    drop_low: float
    drop_high: float
    largest_difference: float


def compare(network: np.ndarray, file: np.ndarray, labels: np.ndarray, confidence: float) -> Parity:
    choices = [answers.argmax(axis=1) for answers in (network, file)]
    before, after = (choice == labels for choice in choices)
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    low, high = statistics.difference_interval(won, lost, len(labels), confidence)
    return Parity(
        agreement=float((choices[0] == choices[1]).mean()),
        accuracy=float(after.mean()),
        accuracy_drop=(lost - won) / len(labels),
        drop_low=low,
        drop_high=high,
        largest_difference=float(np.abs(network - file).max()),
    )


def parity(name: str, found: Parity, limits: params.Export, reason: str = "") -> None:
    """`reason` is one that the processor gives."""
    if not np.isfinite(found.largest_difference):
        raise Refusal(f"{name}.onnx gives answers that are not finite: it is not exported")
    if found.agreement < limits.min_agreement or found.accuracy_drop > limits.max_accuracy_drop:
        raise Refusal(
            f"{name}.onnx is not the network it was made from: it agrees on {found.agreement:.2%} of val (the gate: "
            f"{limits.min_agreement:.2%}) and loses {found.accuracy_drop:.2%} accuracy (the gate: "
            f"{limits.max_accuracy_drop:.2%}); nothing is exported. Look at calibration, or loosen export.min_agreement"
            f"{reason}"
        )


def accuracy(name: str, file: Facts, float_file: Facts, limits: params.Export) -> None:
    lost = float_file["accuracy"] - file["accuracy"]
    if lost > limits.max_quantized_drop:
        raise Refusal(
            f"{name}.onnx loses {lost:.2%} accuracy on val against the float file (the gate: "
            f"{limits.max_quantized_drop:.2%}); nothing is exported. More bits under quantize.method, a recovery, or a "
            "larger export.max_quantized_drop would let it pass"
        )


def packing(name: str, file: Facts, limits: params.Export) -> None:
    over = file["bytes"] / file["ideal_bytes"]
    if over > limits.max_over_ideal:
        raise Refusal(
            f"{name}.onnx takes {file['bytes']} bytes, {over:.3f} times the {file['ideal_bytes']} that its numbers "
            f"need (the gate: {limits.max_over_ideal:g}); nothing is exported. Its weights are "
            "not packed as they could be: raise export.max_over_ideal to ship it so"
        )


def integer(
    name: str,
    file: Facts,
    float_file: Facts,
    kept: int,
    limits: params.Export,
) -> None:
    """Each product with a weight runs as integers, but those of `kept` layers, and integers stand in the file; products
    of two activations and the graph beside them are not counted. Both files' numbers are weighed unpacked: bits and
    zeros that are left out make a file small, and no integers."""
    if file["integer_kernels"] == 0 or file["float_kernels"] != kept:
        raise Refusal(
            f"{name}.onnx runs {file['integer_kernels']} products as integers and {file['float_kernels']} in floating "
            f"point, with a weight, where {kept} are to be kept so: it may not be called integer; nothing is exported"
        )
    share = file["tensor_bytes"] / float_file["tensor_bytes"]
    if share > limits.max_int8_size and not kept:
        raise Refusal(
            f"the numbers in {name}.onnx take {file['tensor_bytes']} bytes unpacked, {share:.0%} of the float file's "
            f"{float_file['tensor_bytes']} (the gate: {limits.max_int8_size:.0%}): it may not be called integer; "
            "nothing is exported. A very narrow network needs a larger export.max_int8_size: it is scales, not weights"
        )


def dynamic(name: str, products: Mapping[str, int], layers: int) -> None:
    used = sum(products.get(kernel, 0) for kernel in DYNAMIC)
    if used < layers:
        raise Refusal(
            f"{name}.onnx runs {used} products with ranges found at every call, where {layers} layers should: it may "
            "not be called dynamic INT8; nothing is exported"
        )


def codes(name: str, path: Path, stored: Mapping[str, np.ndarray], bits: Mapping[str, WeightBits]) -> int:
    """The file holds the very codes of its network, and no channel takes more levels than its bits can tell; the most
    that any takes. With one bit there is none for zero: what was pruned lies in a mask beside it."""
    in_file = Counter(rows.tobytes() for rows in running.weights(running.folded(path)).values())
    most = 0
    for layer, matrix in stored.items():
        rows = np.ascontiguousarray(matrix.reshape(len(matrix), -1))
        if not in_file[rows.tobytes()]:
            raise Refusal(
                f"{name}.onnx does not hold the codes of layer {layer} as they were learnt: it is not exported"
            )
        levels = max(len(np.unique(row[row != 0] if bits[layer] == 1 else row)) for row in rows)
        if levels > _distinct(bits[layer]):
            raise Refusal(
                f"{name}.onnx: a channel of layer {layer} takes {levels} values, more than {bits[layer]} bits can "
                "tell: it is not exported"
            )
        most = max(most, levels)
    return most


def _distinct(bits: WeightBits) -> int:
    return 3 if bits == "ternary" else 2 ** int(bits)
