"""The results table of README.md, out of what `dvc repro` wrote; `python -m tests.readme_table` puts it in."""

import json
import re
from pathlib import Path
from typing import Any

from stages.core.running.sources import ROOT

README = ROOT / "README.md"
SWEEP = "sweeps/digits.json"
PLACE = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def table(metrics: Path = ROOT / "metrics") -> str:
    measured = json.loads((metrics / "benchmark.json").read_text())
    files = measured["files"]
    head = [
        "file",
        f"accuracy on {measured['pictures']} test pictures [95 % interval]",
        "bytes",
        "of the teacher's",
        "latency, one thread [95 % interval]",
        "times as fast as the teacher [95 % interval]",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name in ("teacher", "student", "pruned", "quantized"):
        file = files[name]
        speed = file["one_thread"]
        lines.append(
            f"| {name}.onnx | {file['accuracy']:.1%} [{file['accuracy_low']:.1%}, {file['accuracy_high']:.1%}] "
            f"| {file['bytes']:,} | {file['bytes'] / files['teacher']['bytes']:.1%} "
            f"| {speed['median']:.3f} ms [{speed['low']:.3f}, {speed['high']:.3f}]{' noisy' if speed['noisy'] else ''} "
            f"| {faster(speed) if name != 'teacher' else 'reference'} |"
        )
    return "\n".join([*lines, "", " ".join(filter(None, (note(measured), over_seeds(metrics / SWEEP)))), ""])


def faster(speed: dict[str, Any]) -> str:
    low, high = speed["times_faster_low"], speed["times_faster_high"]
    return f"{speed['times_faster_than_teacher']:.1f}x [{low:.1f}, {high:.1f}]"


def note(measured: dict[str, Any]) -> str:
    machine, files = measured["machine"], measured["files"]
    calls = [files[name]["one_thread"]["calls"] for name in ("teacher", "quantized")]
    rounds = files["quantized"]["one_thread"]["rounds"]
    integer, other = files["quantized"]["integer_kernels"], files["quantized"]["float_kernels"]
    return (
        f"One seed, so no row is claimed better than another by this table. {machine['cpu']}, "
        f"{machine['cores']} cores, "
        f"{', '.join(machine['instructions'])}; torch {machine['torch']}, ONNX Runtime {machine['onnxruntime']}; "
        f"medians of {calls[0]:,} to {calls[1]:,} calls in {rounds} interleaved rounds, each in a "
        f"process of its own, batch 1. quantized.onnx runs "
        f"{integer} of {integer + other} products as integers. From metrics/benchmark.json."
    )


def over_seeds(path: Path) -> str:
    """How much of the table is a matter of the seed."""
    if not path.is_file():
        return ""
    content = json.loads(path.read_text())
    [found] = [one for one in content["comparisons"] if one["metric"] == "accuracy on test"]
    [pair] = [one for one in found["pairs"] if (one["first"], one["second"]) == ("quantized", "teacher")]
    means = ", ".join(
        f"{one['name']} {one['mean']:.1%} ± {one['sd']:.1%}" for one in found["series"] if one["name"] != "control"
    )
    difference = " to ".join(f"{100 * pair[end]:+.2f}" for end in ("low", "high"))
    return (
        f"Over {pair['n']} seeds, which vary split, start and order, mean ± sd: {means}; quantized less teacher "
        f"{100 * pair['difference']:+.2f} points [{difference}], {pair['verdict']} (paired t test and "
        f"equivalence, after Holm). From metrics/{SWEEP}, by `lightvision sweep`."
    )


def main() -> None:
    text = README.read_text(encoding="utf-8")
    README.write_text(PLACE.sub(lambda found: found[1] + table() + found[2], text), encoding="utf-8")


if __name__ == "__main__":
    main()
