"""In which ways files are run here."""

from pathlib import Path

import onnxruntime

from stages.core.clocking.tasks import Way
from stages.core.shipping import sessions

ONE_THREAD = Way("one_thread", 1, (sessions.CPU,))
ALL_THREADS = Way("all_threads", 0, (sessions.CPU,))
GPU = Way("gpu", 1, (sessions.CUDA, sessions.CPU))

WAYS = (ONE_THREAD, ALL_THREADS, GPU)


def here(gpu: bool) -> tuple[Way, ...]:
    return WAYS if gpu else WAYS[:-1]


def without_gpu(path: Path) -> str:
    """Why `path` cannot run on a GPU here; empty if it can. ONNX Runtime takes the CPU without a word if it must."""
    if sessions.CUDA not in onnxruntime.get_available_providers():
        return "no CUDA provider in this ONNX Runtime"
    if sessions.session(path, GPU.threads, GPU.providers).get_providers()[0] != sessions.CUDA:
        return "this ONNX Runtime has a CUDA provider that does not start here"
    return ""
