"""ncnn's two files: a list of layers (.param) and their numbers (.bin), for one picture.

ncnn takes pictures as its own `Mat::from_pixels` makes them: float32, channels first, RGB values 0..255; normalisation
is inside. There is no place for facts: they stand on the card beside the files. float16 is how weights are stored; ncnn
computes in it where the processor can, and in float32 elsewhere.
"""

import subprocess
import tempfile
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from stages.core.converting.makers import ncnn_files, protocol
from stages.core.converting.makers.ncnn_graph import with_ncnn_pixels
from stages.core.converting.makers.protocol import Answer, Described, Handed

ncnn: Any = import_module("ncnn")  # of another environment, and of this module's own name

IN, OUT = "in0", "out0"  # as pnnx names them
GIVEN = "float32 channels first, RGB values 0..255, as ncnn::Mat::from_pixels makes them"


def float32(handed: Handed, stem: Path) -> None:
    _convert(handed, stem, halves=False)


def float16(handed: Handed, stem: Path) -> None:
    _convert(handed, stem, halves=True)


def _convert(handed: Handed, stem: Path, *, halves: bool) -> None:
    size = handed.facts["image_size"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        onnx.save(with_ncnn_pixels(onnx.load(handed.onnx), size), path)
        files = [f"ncnnparam={stem.with_suffix('.param')}", f"ncnnbin={stem.with_suffix('.bin')}"]
        asked = [str(_pnnx()), str(path), f"inputshape=[1,3,{size},{size}]", f"fp16={int(halves)}", *files]
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not stem.with_suffix(".bin").is_file():
        raise ValueError(f"pnnx ended with status {done.returncode}: {_last(done.stderr)}")
    unknown = {
        layer.kind for layer in ncnn_files.layers(stem.with_suffix(".param")) if ncnn.layer_to_index(layer.kind) < 0
    }
    if unknown:
        raise ValueError(f"ncnn has no layer {', '.join(sorted(unknown))}")


def _pnnx() -> Path:
    """Its module would import torch, only to start this program."""
    spec = find_spec("pnnx")
    [folder] = spec.submodule_search_locations if spec and spec.submodule_search_locations else [""]
    return Path(folder) / "pnnx"


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was given"])[-1].strip()


def opened(file: Path) -> Answer:
    halves = "float16" in ncnn_files.stored(file)
    network = ncnn.Net()
    network.opt.num_threads = 1
    network.opt.use_vulkan_compute = network.opt.use_bf16_storage = False
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = halves
    if network.load_param(str(file)) or network.load_model(str(file.with_suffix(".bin"))):
        raise ValueError(f"ncnn cannot load {file}")

    def answer(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[1:3]
        extractor = network.create_extractor()
        extractor.input(IN, ncnn.Mat.from_pixels(picture[0], ncnn.Mat.PixelType.PIXEL_RGB, width, height))
        return np.array(extractor.extract(OUT)[1])

    return answer


def describe(file: Path) -> Described:
    stored = ncnn_files.stored(file)
    operators = Counter(layer.kind for layer in ncnn_files.layers(file))
    return Described(
        runtime=f"ncnn {ncnn.__version__}",
        kind=" and ".join(sorted(set(stored))),
        types=Counter(stored),
        operators=operators,
        input=GIVEN,
        transposes=operators["Permute"],
    )


if __name__ == "__main__":
    kinds = {f.__name__: f for f in (float32, float16)}
    protocol.main(convert=kinds, answer=opened, describe=describe)
