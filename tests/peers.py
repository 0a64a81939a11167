# pyright: reportMissingImports=false
"""The same network, in integers of 8 bits by other toolkits and by ours: bytes, accuracy, latency in turns.

`python -m tests.peers --help` tells how to run it; docs/results/quantization.md has the versions and the environment of
its own that the other toolkits need. None of them is a dependency of the project.
"""

import argparse
import copy
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from lightvision import data, widths
from stages.core import hardware, params
from stages.core.datasets import storage
from stages.core.datasets.storage import Facts
from stages.core.networks import artifact
from stages.core.running import files
from stages.core.shipping import sessions, writing

OURS, FLOAT = "LightVision", widths.FLOAT
TOOLKITS = ("onnxruntime", "openvino", "nncf", "torch", "torchao")
BATCH = 32
Feed = dict[str, np.ndarray]


class OpenVINO:
    """On one thread, for the sake of latency."""

    def __init__(self, path: Path) -> None:
        import openvino

        limits = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
        self._model = openvino.Core().compile_model(path, "CPU", limits)

    def run(self, outputs: None, feed: Feed) -> list[Any]:
        return [self._model(feed)[0]]


class Compiled:
    """By TorchInductor, its weights frozen."""

    def __init__(self, network: Any) -> None:
        import torch._inductor.config as inductor

        inductor.freezing = True
        self._network = torch.compile(network)

    @torch.no_grad()
    def run(self, outputs: None, feed: Feed) -> list[Any]:
        return [self._network(torch.from_numpy(feed["images"])).numpy()]


class FromPictures(nn.Module):
    """Normalisation inside, as in our files."""

    def __init__(self, network: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(facts.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(facts.std).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images.permute(0, 3, 1, 2).float() - self.mean) / self.std)


def onnxruntime_static(whole: Path, images: np.ndarray, to: Path, method: str) -> None:
    """Its own way: pre-processed, QDQ, uint8 x int8, scales by channel."""
    from onnxruntime import quantization as tool
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(tool.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[np.ndarray] = iter(np.array_split(images, -(-len(images) // BATCH)))

        def get_next(self) -> Any:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    ready = to.with_suffix(".ready.onnx")
    quant_pre_process(whole, ready)
    tool.quantize_static(
        ready,
        to,
        Reader(),
        quant_format=tool.QuantFormat.QDQ,
        per_channel=True,
        activation_type=tool.QuantType.QUInt8,
        weight_type=tool.QuantType.QInt8,
        calibrate_method=tool.CalibrationMethod[method],
    )


def openvino_float(whole: Path, _: np.ndarray, to: Path) -> None:
    import openvino

    openvino.save_model(openvino.Core().read_model(whole), to, compress_to_fp16=False)


def openvino_static(whole: Path, images: np.ndarray, to: Path) -> None:
    import nncf
    import openvino

    given = nncf.Dataset(list(images[:, None]))
    model = nncf.quantize(openvino.Core().read_model(whole), given, subset_size=len(images))
    openvino.save_model(model, to, compress_to_fp16=False)


def torch_float(network: nn.Module, images: np.ndarray) -> ExportedProgram:
    return torch.export.export(network, (torch.from_numpy(images[:1]),))


def torchao_static(network: nn.Module, images: np.ndarray) -> ExportedProgram:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    example = torch.from_numpy(images[:1])
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(network, (example,)).module(), quantizer)
    for picture in torch.from_numpy(images).split(1):
        prepared(picture)
    return torch.export.export(convert_pt2e(prepared), (example,))


@torch.no_grad()
def compare(network: Path, calibration: Path, judging: Path, scratch: Path) -> dict[str, Any]:
    settings, model = data.settings(), artifact.load(network)
    looked_at, judged = storage.load(calibration), storage.load(judging)
    images = np.ascontiguousarray(looked_at.images)
    paths = {FLOAT: scratch / f"{FLOAT}.onnx"}
    writing.write(copy.deepcopy(model), paths[FLOAT], settings.export.opset, {})
    method = settings.quantize.method
    assert isinstance(method, params.Integer)
    methods = {f"{OURS} W{bits}": method.model_copy(update={"weights": bits}) for bits in (8, 4)}
    ours = widths.Ladder(network, looked_at, methods, 1, settings)
    paths |= {name: made for name, [made] in ours.files(scratch)}
    for method in ("MinMax", "Entropy", "Percentile"):
        paths[f"ONNX Runtime {method}"] = scratch / f"{method}.onnx"
        onnxruntime_static(paths[FLOAT], images, paths[f"ONNX Runtime {method}"], method)
    opened: dict[str, Any] = {name: sessions.session(path, threads=1) for name, path in paths.items()}
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    for name, make in {"OpenVINO float32": openvino_float, "OpenVINO, NNCF": openvino_static}.items():
        path = scratch / f"{name}.xml"
        make(paths[FLOAT], images, path)
        opened[name] = OpenVINO(path)
        sizes[name] = path.stat().st_size + path.with_suffix(".bin").stat().st_size
    inside = FromPictures(model.network, model.card.facts).eval()
    for name, make in {"torch float32": torch_float, "torchao PT2E": torchao_static}.items():
        program, path = make(inside, images), scratch / f"{name}.pt2"
        torch.export.save(program, path)
        opened[name] = Compiled(program.module())
        sizes[name] = path.stat().st_size
    answers = {name: _answers(session, judged.images) for name, session in opened.items()}
    timed = widths.timings(
        in_turns(opened, judged.images[:1], settings.benchmark), next(iter(methods)), settings.benchmark
    )
    found = {
        name: {"bytes": sizes[name], **timed[name]}
        | widths.judged(answers[name], answers[FLOAT], judged.labels, settings.benchmark.confidence)
        for name in opened
    }
    versions = {name: metadata.version(name) for name in TOOLKITS}
    return {"pictures": len(judged), "machine": hardware.describe(), "versions": versions, "files": found}


def in_turns(opened: Mapping[str, Any], picture: np.ndarray, settings: params.Benchmark) -> dict[str, np.ndarray]:
    """Round x call, all in this process: other toolkits have none of their own to be started in."""
    calls: dict[str, int] = {}
    for name, session in opened.items():
        pace = float(np.median(sessions.clock(session, picture, 10))) / 1e3
        calls[name] = max(3, int(settings.seconds_per_file / settings.rounds / pace))
    times: dict[str, list[np.ndarray]] = {name: [] for name in opened}
    for _ in range(settings.rounds):
        for name, session in opened.items():
            times[name].append(sessions.clock(session, picture, calls[name]))
    return {name: np.stack(measured) for name, measured in times.items()}


def _answers(session: Any, images: np.ndarray) -> np.ndarray:
    """One by one, as they are timed."""
    return np.concatenate([session.run(None, {"images": np.ascontiguousarray(one[None])})[0] for one in images])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("network", type=Path, help="a model in floating point")
    parser.add_argument("--calibration", type=Path, default=Path("data/calibration"))
    parser.add_argument("--judging", type=Path, default=Path("data/val"))
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files.write_json(asked.json, compare(asked.network, asked.calibration, asked.judging, Path(folder)))
