"""The shipped files themselves, in an unmodified ONNX Runtime: bytes, accuracy, and latency side by side."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.core import clocking, hardware, params, statistics
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run
from stages.core.shipping import running

BASELINE = "teacher"


def main(run: Run, benchmark: params.Benchmark, test: Input, shipped: Input, metrics: Output, rounds: Output) -> None:
    judging = storage.load(test)
    paths = {path.stem: path for path in sorted(shipped.glob("*.onnx"))}
    results = {name: describe(path, judging, benchmark) for name, path in paths.items()}
    for name, milliseconds in clocking.loading(paths).items():
        results[name]["load_milliseconds"] = milliseconds
    lines = ["file,threads,round,milliseconds\n"]
    for threads, label in ((1, "one_thread"), (0, "all_threads")):
        sessions = {name: running.session(path, threads) for name, path in paths.items()}
        times = clocking.interleaved(sessions, label.replace("_", " "), judging.images[:1], benchmark)
        for name, milliseconds in times.items():
            ratio = float(np.median(clocking.times_faster(milliseconds, times[BASELINE])))
            timing = clocking.timing(milliseconds, benchmark.confidence)
            results[name][label] = timing | {f"times_faster_than_{BASELINE}": ratio}
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
