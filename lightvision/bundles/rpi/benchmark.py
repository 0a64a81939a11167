#!/usr/bin/env python3
"""Times model files on this device, and says what the device is: a file for metrics/devices/ of the project.

In each round every file in turn, in an order drawn anew and in a session of its own, so that whatever slows the device
slows them all. Rounds are the unit, not calls.
"""

# pyright: reportMissingImports=false

import argparse
import hashlib
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import checking
import device
import numpy as np
import onnxruntime
from lightvision_runner.errors import Unusable
from lightvision_runner.model import load

HERE = Path(__file__).resolve().parent
OWN = HERE / "model.onnx"
CONFIDENCE = 0.95
NOISY = 0.1  # of the median, from which on an interval says that the device was busy
WAYS = {"one_thread": 1, "all_threads": 0}
WARM_UP, FEWEST = 5, 3
INTERVAL = "order statistics of the rounds' medians, taken as independent"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("files", nargs="*", type=Path, default=[OWN], help="model files; the bundle's if not given")
    parser.add_argument("--name", default=device.name(), help="of the device; %(default)s if not given")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="that are timed of each file, all rounds together")
    parser.add_argument("--out", type=Path, help="a file; the terminal if not given")
    asked = parser.parse_args()
    if asked.rounds < fewest_rounds(CONFIDENCE) or not 0 < asked.seconds < math.inf:
        parser.error(f"at least {fewest_rounds(CONFIDENCE)} rounds and more than 0 seconds")
    if asked.out and not asked.out.parent.is_dir():
        parser.error(f"--out: there is no folder {asked.out.parent}")
    text = json.dumps(measured(asked.files, asked.name, asked.rounds, asked.seconds), indent=2, allow_nan=False)
    if asked.out:
        partial = asked.out.with_name(asked.out.name + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, asked.out)
    else:
        print(text)
    return 0


def measured(paths: Sequence[Path], name: str, rounds: int, seconds: float) -> dict[str, Any]:
    before, files = device.state(), named(paths)
    checked = checking.check(load(OWN), HERE)
    timed = {file: {way: [] for way in WAYS} for file in files}
    draw = random.Random(0)  # noqa: S311 - an order, not a secret
    for _ in range(rounds):
        for file in draw.sample(sorted(files), len(files)):
            for way, threads in WAYS.items():
                timed[file][way].append(clock(files[file], threads, seconds / rounds / len(WAYS)))
    return {
        "device": name,
        "machine": device.describe() | {"before": before, "after": device.state()},
        "confidence": CONFIDENCE,
        "interval": INTERVAL,
        "files": {
            file: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            | {way: summary(calls) for way, calls in timed[file].items()}
            for file, path in files.items()
        },
        "agreement": checked["agreement"],
        "check": checked,
    }


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Of each file that can be asked the name by which it is told."""
    files: dict[str, Path] = {}
    for path in paths:
        load(path)
        if (name := called(path)) in files:
            raise Unusable(f"{files[name]} and {path} would both be called {name}: measure them apart")
        files[name] = path
    return files


def called(path: Path) -> str:
    """The bundle's own file by the name that it has in the project."""
    if path.resolve() == OWN:
        return json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))["name"]
    return path.stem


def clock(path: Path, threads: int, seconds: float) -> list[float]:
    """Milliseconds of single pictures, as many as the time allows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [taken] = session.get_inputs()
    feed = {taken.name: np.random.default_rng(0).integers(256, size=(1, *taken.shape[1:]), dtype=np.uint8)}
    for _ in range(WARM_UP):
        session.run(None, feed)
    milliseconds: list[float] = []
    while len(milliseconds) < FEWEST or sum(milliseconds) < seconds * 1e3:
        began = time.perf_counter_ns()
        session.run(None, feed)
        milliseconds.append((time.perf_counter_ns() - began) / 1e6)
    return milliseconds


def summary(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    medians = sorted(float(np.median(calls)) for calls in rounds)
    median = float(np.median(medians))
    at = rank(len(medians), CONFIDENCE)
    low, high = medians[at], medians[-1 - at]
    calls = np.concatenate([np.asarray(one) for one in rounds])
    return {
        "median": median,
        "low": low,
        "high": high,
        "p95": float(np.percentile(calls, 95)),
        "calls": len(calls),
        "rounds": len(rounds),
        "noisy": bool((high - low) / median > NOISY),
    }


def rank(count: int, confidence: float) -> int:
    """How many of sorted numbers lie outside an interval of their median, on either side (Thompson 1936)."""
    outside, at = 0.5**count, 0
    while 2 * (more := outside + math.comb(count, at + 1) * 0.5**count) <= 1 - confidence:
        outside, at = more, at + 1
    return at


def fewest_rounds(confidence: float) -> int:
    """By which even the least and the greatest bound a median so surely."""
    return math.ceil(math.log2(2 / (1 - confidence)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as problem:
        sys.exit(f"benchmark.py: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
