"""What was measured of files, as metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.clocking import intervals, timing, ways
from stages.core.clocking.tasks import Cell
from stages.core.clocking.turns import Measured

FEWEST_ROUNDS = 3  # whose joules are a number


def files(measured: Mapping[str, Measured], baseline: str, confidence: float) -> dict[str, dict[str, Any]]:
    """One picture at once stands by itself, larger batches under `batches`."""
    found: dict[str, dict[str, Any]] = {}
    for name, one in measured.items():
        beside = measured[baseline].calls
        timed = {cell: _timed(own, beside[cell], cell, baseline, confidence) for cell, own in one.calls.items()}
        batches = sorted({cell.batch for cell in timed} - {1})
        found[name] = {
            "load": _load(one.load, confidence),
            "memory": _memory(one, confidence),
            "joules": _joules(one.joules, confidence),
            **_by_way(timed, 1),
            "batches": {str(batch): _by_way(timed, batch) for batch in batches},
        }
    return found


def write_rounds(path: Path, measured: Mapping[str, Measured]) -> None:
    """The median of each round's calls."""
    lines = ["file,batch,threads,round,milliseconds\n"]
    for name, one in measured.items():
        for cell, calls in one.calls.items():
            medians = enumerate(np.median(calls, axis=1))
            lines += [f"{name},{cell.batch},{cell.way.name},{at},{value:.6f}\n" for at, value in medians]
    path.write_text("".join(lines))


def _by_way(timed: Mapping[Cell, dict[str, Any]], batch: int) -> dict[str, dict[str, Any] | None]:
    return {way.name: timed.get(Cell(way, batch)) for way in ways.WAYS}


def _timed(own: np.ndarray, other: np.ndarray, cell: Cell, baseline: str, confidence: float) -> dict[str, Any]:
    ratio, low, high = timing.times_faster(own, other, confidence)
    ratios = {f"times_faster_than_{baseline}": ratio, "times_faster_low": low, "times_faster_high": high}
    return timing.timing(own, cell.batch, confidence) | ratios


def _load(milliseconds: np.ndarray, confidence: float) -> dict[str, float | int]:
    low, high = intervals.interval(milliseconds, np.median, confidence)
    p95 = float(np.percentile(milliseconds, 95))
    return {"median": float(np.median(milliseconds)), "low": low, "high": high, "p95": p95, "n": len(milliseconds)}


def _memory(one: Measured, confidence: float) -> dict[str, float | int]:
    low, high = intervals.interval(one.peak_bytes, np.median, confidence)
    return {
        "peak_bytes": int(np.median(one.peak_bytes)),
        "low": int(low),
        "high": int(high),
        "over_runtime_bytes": int(np.median(one.over_runtime_bytes)),
    }


def _joules(joules: np.ndarray, confidence: float) -> dict[str, float] | None:
    if len(joules) < FEWEST_ROUNDS:
        return None
    low, high = intervals.interval(joules, np.median, confidence)
    return {"per_picture": float(np.median(joules)), "low": low, "high": high}
