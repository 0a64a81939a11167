"""A file in an unmodified ONNX Runtime; imports little, since a process that is timed begins here."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from stages.core.running.errors import Refusal

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def session(path: Path, threads: int, providers: Sequence[str] = (CPU,)) -> onnxruntime.InferenceSession:
    """`threads` 0 takes every core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime's own errors have no base class in common but this
        raise Refusal(f"{path} does not load in ONNX Runtime: {error}") from error


def clock(session: onnxruntime.InferenceSession, pictures: np.ndarray, calls: int) -> np.ndarray:
    """Milliseconds of each call."""
    feed = {"images": pictures}
    milliseconds = np.empty(calls)
    for call in range(calls):
        began = time.perf_counter_ns()
        session.run(None, feed)
        milliseconds[call] = (time.perf_counter_ns() - began) / 1e6
    return milliseconds
