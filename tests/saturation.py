"""What ONNX Runtime's own kernels answer on other processors, beside plain arithmetic.

`python -m tests.saturation` prints the table of docs/results/saturation.md; it needs qemu-x86_64 (Debian: qemu-user).
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.lib.stride_tricks import sliding_window_view
from onnx import ModelProto, TensorProto, helper, numpy_helper

from stages.core.shipping import portable

QEMU = shutil.which("qemu-x86_64")
PROCESSORS = ("Nehalem", "SandyBridge", "Haswell")
READ, WRITTEN = (0.02, 7), (0.25, 128)  # scale and zero point of what a layer reads and writes
CHANNELS = 16

ANSWER = """
import pathlib, sys
import numpy as np, onnxruntime
folder = pathlib.Path(sys.argv[1])
for path in folder.glob("*.onnx"):
    given = np.load(path.with_suffix(".npy"))
    for precise, suffix in (("0", ""), ("1", "-precise")):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.x64quantprecision", precise)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        answer = session.run(None, {session.get_inputs()[0].name: given})[0]
        np.save(folder / f"{path.stem}{suffix}.answer.npy", answer)
"""


@dataclass(frozen=True)
class Layer:
    """One integer kernel with its weight, a row of `codes` for each channel it writes, and a scale for each row."""

    kernel: str
    codes: np.ndarray
    scale: np.ndarray
    given: np.ndarray

    def model(self) -> ModelProto:
        """In ONNX Runtime's own operators: nothing is left to be chosen but the kernel."""
        weight = self.codes.T if self.kernel == "QLinearMatMul" else self.codes
        tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(self.scale, "w_scale")]
        tensors += [numpy_helper.from_array(np.zeros(len(self.scale), np.int8), "w_zero")]
        for name, (scale, zero) in {"read": READ, "written": WRITTEN}.items():
            tensors.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"))
            tensors.append(numpy_helper.from_array(np.array(zero, np.uint8), f"{name}_zero"))
        reads = ["x", "read_scale", "read_zero", "w", "w_scale", "w_zero"]
        writes = ["written_scale", "written_zero"]
        if self.kernel == "QGemm":
            node = helper.make_node("QGemm", [*reads, "", *writes], ["y"], domain="com.microsoft", transB=1)
        elif self.kernel == "QLinearMatMul":
            node = helper.make_node("QLinearMatMul", [*reads, *writes], ["y"])
        else:
            groups = self.given.shape[1] // self.codes.shape[1]
            node = helper.make_node("QLinearConv", [*reads, *writes], ["y"], group=groups)
        graph = helper.make_graph(
            [node],
            self.kernel,
            [helper.make_tensor_value_info("x", TensorProto.UINT8, self.given.shape)],
            [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
            tensors,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def expected(self) -> np.ndarray:
        """Sums in 32 bits, then one rounding, half to even."""
        (read_scale, read_zero), (written_scale, written_zero) = READ, WRITTEN
        x, w = self.given.astype(np.int32) - read_zero, self.codes.astype(np.int32)
        if w.ndim == 2:
            sums, scale = x @ w.T, self.scale
        else:
            windows = sliding_window_view(x, w.shape[2:], axis=(2, 3))
            each = windows.reshape(len(x), -1, w.shape[1], *windows.shape[2:])  # group by group
            grouped = w.reshape(each.shape[1], -1, *w.shape[1:])
            sums = np.einsum("ngcyxhw,gochw->ngoyx", each, grouped).reshape(len(x), len(w), *windows.shape[2:4])
            scale = self.scale[:, None, None]
        steps = np.rint(sums * (np.float32(read_scale) * scale / np.float32(written_scale)).astype(np.float32))
        return np.clip(steps + written_zero, 0, 255).astype(np.uint8)


def layers() -> dict[str, Layer]:
    """Bright inputs and large weights of one sign in a channel, in the full range and in the reduced one."""
    generator = np.random.default_rng(0)
    picture = generator.integers(64, 256, (2, CHANNELS, 6, 6), dtype=np.uint8)
    table = generator.integers(64, 256, (5, 64), dtype=np.uint8)
    shapes = {
        "convolution": ("QLinearConv", (8, CHANNELS, 3, 3), picture),
        "depthwise": ("QLinearConv", (CHANNELS, 1, 3, 3), picture),
        "linear": ("QGemm", (8, 64), table),
        "product": ("QLinearMatMul", (8, 64), table),
    }
    found: dict[str, Layer] = {}
    for name, (kernel, shape, given) in shapes.items():
        codes = torch.tensor(generator.integers(32, 128, shape), dtype=torch.int8)
        codes[::2] *= -1
        scale = torch.full((shape[0],), 48 / (codes[0].numel() * 127 * READ[0] * 255))
        reduced = portable.narrow(codes, scale)
        for width, (code, step) in {"full": (codes, scale), "reduced": reduced}.items():
            found[f"{name}-{width}"] = Layer(kernel, code.numpy(), step.numpy(), given)
    return found


def answers(models: dict[str, tuple[ModelProto, np.ndarray]], processor: str | None) -> dict[str, np.ndarray]:
    """Of this machine itself for None; `-precise` is asked for by the session's option."""
    emulated = [str(QEMU), "-cpu", processor] if processor else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, (model, given) in models.items():
            onnx.save(model, folder / f"{stem}.onnx")
            np.save(folder / f"{stem}.npy", given)
        subprocess.run([*emulated, sys.executable, "-c", ANSWER, name], check=True, stderr=subprocess.DEVNULL)
        return {path.name.removesuffix(".answer.npy"): np.load(path) for path in folder.glob("*.answer.npy")}


def wrong(processor: str | None) -> dict[str, float]:
    """The share of outputs that are not those of plain arithmetic."""
    wanted = layers()
    found = answers({name: (layer.model(), layer.given) for name, layer in wanted.items()}, processor)
    expected = {name: wanted[name.removesuffix("-precise")].expected() for name in sorted(found)}
    return {name: float((found[name] != values).mean()) for name, values in expected.items()}


if __name__ == "__main__":
    results = {processor or "this machine": wrong(processor) for processor in (None, *PROCESSORS)}
    print("| layer, codes | " + " | ".join(results) + " |")
    print("| --- |" + " --- |" * len(results))
    for name in next(iter(results.values())):
        print(f"| {name} | " + " | ".join(f"{shares[name]:.0%}" for shares in results.values()) + " |")
