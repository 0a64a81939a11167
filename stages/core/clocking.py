"""Shipped files against each other: they take turns, so that whatever slows the machine slows them all."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession

from stages.core import params, statistics
from stages.core.running import progress
from stages.core.shipping import running

LOADS = 7


def loading(paths: Mapping[str, Path]) -> dict[str, float]:
    """Milliseconds until a file can answer, on one thread, unpacking and choice of kernels included."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(LOADS):
        for name, path in paths.items():
            began = time.perf_counter_ns()
            running.session(path, threads=1)
            times[name].append((time.perf_counter_ns() - began) / 1e6)
    return {name: float(np.median(measured)) for name, measured in times.items()}


def interleaved(
    sessions: Mapping[str, InferenceSession], title: str, picture: np.ndarray, settings: params.Benchmark
) -> dict[str, np.ndarray]:
    """Milliseconds, round x call."""
    calls = {name: how_many(session, picture, settings) for name, session in sessions.items()}
    times: dict[str, list[np.ndarray]] = {name: [] for name in sessions}
    for _ in progress.track(range(settings.rounds), f"latency, {title}", settings.rounds):
        for name, session in sessions.items():
            times[name].append(running.clock(session, picture, calls[name]))
    return {name: np.stack(measured) for name, measured in times.items()}


def how_many(session: InferenceSession, picture: np.ndarray, settings: params.Benchmark) -> int:
    """Calls a round, so that all rounds together take the wanted time; this warms up, too."""
    running.clock(session, picture, 5)
    pace = float(np.median(running.clock(session, picture, 10))) / 1e3
    return max(3, int(settings.seconds_per_file / settings.rounds / pace))


def times_faster(milliseconds: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Round by round, by medians."""
    return np.median(baseline, axis=1) / np.median(milliseconds, axis=1)


def timing(milliseconds: np.ndarray, confidence: float) -> dict[str, float | int | bool]:
    """The spread is that of the rounds' medians."""
    medians = np.median(milliseconds, axis=1)
    low, high = statistics.median_interval(medians, confidence)
    return {
        "median": float(np.median(medians)),
        "low": low,
        "high": high,
        "p95": float(np.percentile(milliseconds, 95)),
        "calls": int(milliseconds.size),
        "noisy": bool((high - low) / np.median(medians) > 0.1),
    }
