"""A file for ONNX Runtime, ready to answer: nothing is needed beside it but ONNX Runtime, numpy and Pillow."""

from pathlib import Path

import numpy as np
import onnxruntime

from . import cards, describing
from .classifying import Classifier
from .errors import Unusable

ENDINGS = (".onnx", ".ort")
PREFERRED = "quantized.onnx"
FATAL = 4  # what goes wrong is raised, and told once


def load(path: str | Path, threads: int = 0) -> Classifier:
    """An .onnx or .ort file that LightVision exported, or a folder of such. `threads` 0 takes every core."""
    file = chosen(Path(path), ENDINGS)
    if file.suffix.lower() not in ENDINGS:
        raise Unusable(f"{file} is no file for ONNX Runtime: those end in {' or '.join(ENDINGS)}")
    cards.verify(file)
    session = _session(file, threads)
    try:
        description = describing.of_metadata(session.get_modelmeta().custom_metadata_map)
        _refuse_other_shapes(session, description)
    except Unusable as problem:
        raise Unusable(f"{file}: {problem}") from problem
    return Classifier(str(file), description, lambda images: np.asarray(session.run(None, {"images": images})[0]))


def chosen(path: Path, endings: tuple[str, ...]) -> Path:
    """Of a folder the only file of a kind that can be asked, or the one that is meant for devices."""
    if not path.exists():
        raise Unusable(f"{path} is not there")
    if path.is_file():
        return path
    if not path.is_dir():
        raise Unusable(f"{path} is no file")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in endings and file.is_file())
    if len(files) > 1:
        files = [file for file in files if file.name == PREFERRED] or files
    if len(files) == 1:
        return files[0]
    if not files:
        raise Unusable(f"{path} holds no file that could be asked: those end in {', '.join(endings)}")
    raise Unusable(f"{path} holds {len(files)} files that could be asked, name one: {', '.join(map(_name, files))}")


def _name(file: Path) -> str:
    return file.name


def _session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are for those who decode
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Unusable(f"{file} does not load in ONNX Runtime: {error}") from error


def _refuse_other_shapes(session: onnxruntime.InferenceSession, description: describing.Description) -> None:
    given = [(one.name, one.type, one.shape[1:]) for one in session.get_inputs()]
    size = description.image_size
    if given != [("images", "tensor(uint8)", [size, size, 3])]:
        raise Unusable(f"it does not take pictures as uint8 [n, {size}, {size}, 3] under the name images")
    [*_, answers] = session.get_outputs()[0].shape
    if answers != len(description.classes):
        raise Unusable(f"it names {len(description.classes)} classes and gives {answers} answers")
