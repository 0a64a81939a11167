"""The shipped files themselves, in an unmodified ONNX Runtime: bytes, accuracy, latency, memory and joules."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from stages.core import answers, hardware, params, statistics
from stages.core.clocking import describing, meters, turns, ways
from stages.core.clocking.tasks import Cell
from stages.core.datasets import storage
from stages.core.datasets.storage import Split
from stages.core.running.command import Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.shipping import running

BASELINE = "teacher"
TOLD = {"classes", "image_size", "weights", "parameters", "macs"}  # by a file, of itself


def main(
    run: Run,
    benchmark: params.Benchmark,
    test: Input,
    shipped: Input,
    metrics: Output,
    rounds: Output,
    file_answers: Output,
) -> None:
    judging = storage.load(test)
    paths = {path.stem: path for path in sorted(shipped.glob("*.onnx"))}
    if BASELINE not in paths:
        raise Refusal(f"{shipped} has no {BASELINE}.onnx, beside which files are timed: `dvc repro export` writes it")
    for path in paths.values():
        refuse_other_pictures(path, judging)
    here = hardware.describe()
    logits = {name: answered(path, judging) for name, path in paths.items()}
    answers.write(file_answers, judging, {name: special.softmax(one, axis=1) for name, one in logits.items()})
    no_gpu = ways.without_gpu(paths[BASELINE])
    cells = [Cell(way, batch) for way in ways.here(gpu=not no_gpu) for batch in sorted({1, *benchmark.batches})]
    meter, energy = meters.find(gpu=not no_gpu)
    measured = turns.measure(paths, judging.images, cells, benchmark, meter)
    files = {
        name: size(path) | judged(logits[name], judging, benchmark.confidence) | running.kernels(path)
        for name, path in paths.items()
    }
    for name, found in describing.files(measured, BASELINE, benchmark.confidence).items():
        files[name] |= found
    describing.write_rounds(rounds, measured)
    run.metrics(
        metrics,
        {
            "machine": here | {"load_average_at_end": hardware.load_average()},
            "pictures": len(judging),
            "confidence": benchmark.confidence,
            "energy": energy,
            "gpu": {"why": no_gpu} if no_gpu else {"name": here["gpu"]},
            "files": files,
        },
    )


def refuse_other_pictures(path: Path, judging: Split) -> None:
    """A file of other classes would answer, and be wrong about what it was never asked."""
    told = running.facts(path)
    if lacking := sorted(TOLD - told.keys()):
        raise Refusal(f"{path} does not tell its {', '.join(lacking)}: `dvc repro export` writes it anew")
    if running.classes(path) != judging.facts.classes or int(told["image_size"]) != judging.facts.image_size:
        raise Refusal(f"{path} knows other classes, or pictures of another size, than test: `dvc repro` rebuilds it")


def answered(path: Path, judging: Split) -> np.ndarray:
    logits = running.logits(path, judging.images)
    if not np.isfinite(logits).all():
        raise Refusal(f"{path} answers what is no number to a test picture: `dvc repro export` writes it anew")
    return logits


def judged(logits: np.ndarray, judging: Split, confidence: float) -> dict[str, float]:
    right = logits.argmax(axis=1) == judging.labels
    low, high = statistics.wilson(int(right.sum()), len(right), confidence)
    return {"accuracy": float(right.mean()), "accuracy_low": low, "accuracy_high": high}


def size(path: Path) -> dict[str, Any]:
    """Zeros are those of products' weights, counted after all that is packed is unpacked; no other number is one."""
    facts = running.facts(path)
    return {
        "bytes": path.stat().st_size,
        "gzip_bytes": len(gzip.compress(path.read_bytes(), 9)),
        "weights": facts["weights"],
        "parameters": int(facts["parameters"]),
        "nonzero": int(facts["parameters"]) - running.zero_weights(path),
        "macs": int(facts["macs"]),
    }
