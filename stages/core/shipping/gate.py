"""No file leaves that does not answer as the network it was made from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stages.core import params
from stages.core.running.errors import Refusal


@dataclass(frozen=True)
class Parity:
    """A file beside its network, on the same pictures."""

    agreement: float
    accuracy: float
    accuracy_drop: float
    largest_difference: float


def compare(network: np.ndarray, file: np.ndarray, labels: np.ndarray) -> Parity:
    choices = network.argmax(axis=1), file.argmax(axis=1)
    before, after = (float((choice == labels).mean()) for choice in choices)
    return Parity(float((choices[0] == choices[1]).mean()), after, before - after, float(np.abs(network - file).max()))


def parity(name: str, found: Parity, limits: params.Export) -> None:
    if not np.isfinite(found.largest_difference):
        raise Refusal(f"{name}.onnx gives answers that are not finite: it is not exported")
    if found.agreement < limits.min_agreement or found.accuracy_drop > limits.max_accuracy_drop:
        raise Refusal(
            f"{name}.onnx is not the network it was made from: it agrees on {found.agreement:.2%} of val (the gate: "
            f"{limits.min_agreement:.2%}) and loses {found.accuracy_drop:.2%} accuracy (the gate: "
            f"{limits.max_accuracy_drop:.2%}); nothing is exported. Look at calibration, or loosen export.min_agreement"
        )


def integer(
    name: str, file: Mapping[str, float | int], float_file: Mapping[str, float | int], limits: params.Export
) -> None:
    """INT8 means that each product with a weight runs as integers, and integers in the file; products of two
    activations and the graph beside them are not counted. Both files' numbers are weighed unpacked: zeros that are
    left out make a file small, and no integers."""
    if file["integer_kernels"] == 0 or file["float_kernels"] > 0:
        raise Refusal(
            f"{name}.onnx runs {file['integer_kernels']} products as integers and {file['float_kernels']} in floating "
            "point, with a weight: it may not be called INT8; nothing is exported"
        )
    lost = float_file["accuracy"] - file["accuracy"]
    if lost > limits.max_int8_drop:
        raise Refusal(
            f"{name}.onnx loses {lost:.2%} accuracy on val against the float file (the gate: "
            f"{limits.max_int8_drop:.2%}); nothing is exported. Look at quantize.method and the calibration pictures"
        )
    share = file["tensor_bytes"] / float_file["tensor_bytes"]
    if share > limits.max_int8_size:
        raise Refusal(
            f"the numbers in {name}.onnx take {file['tensor_bytes']} bytes unpacked, {share:.0%} of the float file's "
            f"{float_file['tensor_bytes']} (the gate: {limits.max_int8_size:.0%}): it may not be called INT8; "
            "nothing is exported. A very narrow network needs a larger export.max_int8_size: it is scales, not weights"
        )
