"""Whether a benchmark that is run again says the same: `python -m tests.repeatability 6 OUT.json` after `dvc repro`.

It runs the benchmark stage so often, one run right after the other, and counts how many intervals of two runs overlap.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core.running import files
from stages.core.running.sources import ROOT

INPUTS = {"test": "data/test", "shipped": "models/shipped"}
OUTPUTS = ("rounds.csv", "file_answers")
WAYS = ("one_thread", "all_threads")
TEACHER, RATIO = "teacher", "ratio to the teacher"

Intervals = dict[tuple[str, str], tuple[float, float]]  # by file and by what was measured


def measured(folder: Path) -> tuple[dict[str, Any], float]:
    """What one run of the stage wrote, and how many seconds it took."""
    command = [sys.executable, "-m", "stages", "benchmark"]
    command += [f"--{name}={path}" for name, path in INPUTS.items()]
    command += [f"--metrics={folder}/metrics.json"]
    command += [f"--{Path(name).stem.replace('_', '-')}={folder / name}" for name in OUTPUTS]
    began = time.monotonic()
    subprocess.run(command, check=True)
    return files.read_json(folder / "metrics.json"), time.monotonic() - began


def intervals(found: Mapping[str, Any]) -> Intervals:
    """But the teacher's ratio to itself."""
    return {
        (name, what): (low, high)
        for name, file in found["files"].items()
        for what, low, high in _of(file)
        if name != TEACHER or not what.startswith(RATIO)
    }


def _of(file: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    timings = {f"latency, {way}": file[way] for way in WAYS}
    timings |= {f"latency, {way}, batch {size}": one[way] for size, one in file["batches"].items() for way in WAYS}
    for what, one in timings.items():
        yield what, one["low"], one["high"]
        yield what.replace("latency", RATIO), one["times_faster_low"], one["times_faster_high"]
        yield what.replace("latency", "p95"), one["p95_low"], one["p95_high"]
    for what in ("load", "memory"):
        yield what, file[what]["low"], file[what]["high"]


def overlaps(pairs: Sequence[tuple[Intervals, Intervals]]) -> dict[str, dict[str, int]]:
    """By what was measured, over all files and pairs of runs."""
    found: dict[str, dict[str, int]] = {}
    for one, other in pairs:
        for place, (low, high) in one.items():
            counted = found.setdefault(place[1], {"overlapping": 0, "of": 0})
            counted["overlapping"] += low <= other[place][1] and other[place][0] <= high
            counted["of"] += 1
    return found


def main(runs: int, out: Path) -> None:
    told: list[tuple[dict[str, Any], float]] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            told.append(measured(Path(folder)))
    each = [intervals(found) for found, _ in told]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT)
    machines = [found["machine"] for found, _ in told]
    content = {
        "commit": commit.stdout.strip(),
        "machine": machines[0],
        "runs": runs,
        "seconds": [round(seconds, 1) for _, seconds in told],
        "load": [[one["load_average"], one["load_average_at_end"]] for one in machines],
        "medians": [{name: file["one_thread"]["median"] for name, file in found["files"].items()} for found, _ in told],
        "next_to_each_other": overlaps(list(itertools.pairwise(each))),
        "all_pairs": overlaps(list(itertools.combinations(each, 2))),
    }
    files.write_json(out, content)
    print(json.dumps(content["next_to_each_other"], indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
