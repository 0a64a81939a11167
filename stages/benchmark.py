"""The shipped files themselves, in an unmodified ONNX Runtime: bytes, accuracy, and latency side by side."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from stages.core import hardware, params, statistics
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.running import progress
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.shipping import running

BASELINE = "teacher"
LOADS = 7


def main(run: Run, benchmark: params.Benchmark, test: Input, shipped: Input, metrics: Output, rounds: Output) -> None:
    judging = storage.load(test)
    paths = {path.stem: path for path in sorted(shipped.glob("*.onnx"))}
    results = {name: describe(path, judging, benchmark) for name, path in paths.items()}
    for name, milliseconds in loading(paths).items():
        results[name]["load_milliseconds"] = milliseconds
    lines = ["file,threads,round,milliseconds\n"]
    for threads, label in ((1, "one_thread"), (0, "all_threads")):
        times = interleaved(paths, threads, judging.images[:1], benchmark)
        for name, milliseconds in times.items():
            results[name][label] = timing(milliseconds, times[BASELINE], benchmark.confidence)
            lines += [f"{name},{label},{at},{value:.6f}\n" for at, value in enumerate(milliseconds.mean(axis=1))]
    rounds.write_text("".join(lines))
    run.metrics(metrics, {"machine": hardware.describe(), "pictures": len(judging), "files": results})


def describe(path: Path, judging: Split, settings: params.Benchmark) -> dict[str, Any]:
    right = running.logits(path, judging.images).argmax(axis=1) == judging.labels
    low, high = statistics.wilson(int(right.sum()), len(right), settings.confidence)
    facts = running.facts(path)
    return {
        "bytes": path.stat().st_size,
        "weights": facts["weights"],
        "parameters": int(facts["parameters"]),
        "macs": int(facts["macs"]),
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
    } | running.kernels(path)


def loading(paths: dict[str, Path]) -> dict[str, float]:
    """Milliseconds until a file can answer, on one thread, unpacking and choice of kernels included; in turns, too."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(LOADS):
        for name, path in paths.items():
            began = time.perf_counter_ns()
            running.session(path, threads=1)
            times[name].append((time.perf_counter_ns() - began) / 1e6)
    return {name: float(np.median(measured)) for name, measured in times.items()}


def interleaved(
    paths: dict[str, Path], threads: int, picture: np.ndarray, settings: params.Benchmark
) -> dict[str, np.ndarray]:
    """Milliseconds, round x call: the files take turns, so that whatever slows the machine slows them all."""
    sessions = {name: running.session(path, threads) for name, path in paths.items()}
    calls = {name: how_many(session, picture, settings) for name, session in sessions.items()}
    times: dict[str, list[np.ndarray]] = {name: [] for name in sessions}
    for _ in progress.track(range(settings.rounds), f"latency, threads {threads or 'all'}", settings.rounds):
        for name, session in sessions.items():
            times[name].append(running.clock(session, picture, calls[name]))
    return {name: np.stack(measured) for name, measured in times.items()}


def how_many(session: onnxruntime.InferenceSession, picture: np.ndarray, settings: params.Benchmark) -> int:
    """Calls a round, so that all rounds together take the wanted time; this warms up, too."""
    running.clock(session, picture, 5)
    pace = float(np.median(running.clock(session, picture, 10))) / 1e3
    return max(3, int(settings.seconds_per_file / settings.rounds / pace))


def timing(milliseconds: np.ndarray, baseline: np.ndarray, confidence: float) -> dict[str, float | int | bool]:
    """The spread is that of the rounds' medians; the ratio to the baseline is taken round by round."""
    medians = np.median(milliseconds, axis=1)
    low, high = statistics.median_interval(medians, confidence)
    ratios = np.median(baseline, axis=1) / medians
    return {
        "median": float(np.median(medians)),
        "low": low,
        "high": high,
        "p95": float(np.percentile(milliseconds, 95)),
        "calls": int(milliseconds.size),
        f"times_faster_than_{BASELINE}": float(np.median(ratios)),
        "noisy": bool((high - low) / np.median(medians) > 0.1),
    }
