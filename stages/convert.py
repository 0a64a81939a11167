"""The networks as files of other runtimes, each proved on val against the network it was made from."""

import tempfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from stages.core import batches, evaluation, hardware, loading, machine, params, tables
from stages.core.converting import asking, proving
from stages.core.converting.asking import Unable
from stages.core.converting.handing import Handing, Sources
from stages.core.converting.proving import Judging
from stages.core.converting.table import MAKERS, TARGETS
from stages.core.datasets import storage
from stages.core.machine import Machine
from stages.core.networks import artifact
from stages.core.running import files, progress
from stages.core.running.command import Input, Output
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run

COLUMNS = (
    "target",
    "file",
    "bytes",
    "accuracy",
    "accuracy_drop",
    "drop_low",
    "drop_high",
    "agreement",
    "largest_difference",
    "milliseconds",
    "milliseconds_low",
    "milliseconds_high",
    "why",
)


def main(
    run: Run,
    convert: params.Convert,
    compute: params.Compute,
    seed: int,
    val: Input,
    calibration: Input,
    pruned: Input,
    quantized: Input,
    shipped: Input,
    targets: Output,
    metrics: Output,
    table: Output,
) -> None:
    networks = {"pruned": pruned, "quantized": quantized}
    lacking = absent(convert, quantized)
    wanted = [name for name in convert.targets if name not in lacking]
    judging = judged({TARGETS[name].of for name in wanted}, networks, val, machine.choose(compute, seed))
    facts = storage.load(val).facts
    targets.mkdir()
    made: dict[str, dict[str, Any]] = {}
    wrong: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        handing = Handing(Path(folder), Sources(pruned, shipped, calibration))
        for name in progress.track(wanted, "targets", len(wanted)):
            target = TARGETS[name]
            try:
                file = proving.make(name, handing.with_pieces(MAKERS[target.maker].pieces), targets)
                made[name] = proving.prove(name, file, judging, convert)
            except Refusal as refusal:
                proving.discard(name, targets)
                is_left_out = isinstance(refusal, Unable) and convert.absent == "skip"
                (lacking if is_left_out else wrong)[name] = proving.without_folders(str(refusal))
                progress.note(f"{name} is {'left out' if is_left_out else 'refused'}: {refusal}")
            else:
                card = proving.card(name, file, facts, made[name], files.digest(networks[target.of]))
                files.write_json(targets / f"{name}.json", card)
    if wrong:
        raise Refusal("; ".join(f"{name}: {why}" for name, why in wrong.items()) + "; nothing is converted")
    rows = {name: made.get(name, {"made": False, "why": lacking.get(name)}) for name in convert.targets}
    found = {"machine": hardware.describe(), "pictures": len(judging.labels), "confidence": convert.confidence}
    run.metrics(metrics, found | {"targets": rows})
    tables.write(table, COLUMNS, ({"target": name} | _cells(row) for name, row in rows.items()))


def absent(convert: params.Convert, quantized: Path) -> dict[str, str]:
    """Targets that cannot be made here or of this network, and why; converters are built where they can be."""
    quantization = artifact.read_card(quantized).quantization
    lacking: dict[str, str] = {}
    for maker in dict.fromkeys(TARGETS[name].maker for name in convert.targets):
        if not _has_converter(maker):
            built = f"`lightvision targets --build {maker}` builds it where there is a network"
            why = f"no converter: {built}; `dvc repro -f convert` then asks it"
            lacking |= {name: why for name in convert.targets if TARGETS[name].maker == maker}
    if lacking and convert.absent == "fail":
        raise Refusal(f"{', '.join(lacking)}: {next(iter(lacking.values()))}; or set convert.absent to skip")
    if not isinstance(quantization, params.Integer):
        why = "quantize was not asked for integers, and it holds nothing else"
        lacking |= {name: why for name in convert.targets if TARGETS[name].integers}
    for name, why in lacking.items():
        progress.note(f"{name} is left out: {why}")
    return lacking


def _has_converter(maker: str) -> bool:
    """What stood in the way is for the terminal alone: it may name this machine's network and folders."""
    try:
        asking.prepare(maker)
    except Refusal as refusal:
        progress.note(str(refusal))
        return False
    return True


def judged(of: Set[str], networks: Mapping[str, Path], val: Path, here: Machine) -> Judging:
    """On its own machine each network answers as in its gate."""
    split = storage.load(val)
    pictures = batches.on_device(split, here)
    answers = {
        name: evaluation.logits(here.place(loading.load(networks[name]).network), pictures).cpu().numpy()
        for name in sorted(of)
    }
    return Judging(val / "images.npy", split.labels, answers)


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {column: row[column] for column in COLUMNS if column in row}
