"""What pruning took, what it left, and what the same epochs do otherwise; in words, rows and columns."""

from collections.abc import Iterator, Mapping

import pandas as pd

from stages.core import params, words
from stages.core.reporting import sheets, speed
from stages.core.reporting.findings import Findings, Learner, Lesson, Pruned, Timing, Width
from stages.core.reporting.sheets import Cell, Controlled, Row, Table, row, without_empty_columns

NAMES: Mapping[str, str] = {"pruned": "pruned", "uncut": "uncut", "from-scratch": "from scratch"}
NOUNS: Mapping[str, str] = {"uncut": "the uncut student", "from-scratch": "the same shape from scratch"}
CLAIMS: Mapping[tuple[str, str], str] = {
    ("uncut", "helps"): "The cut network is better than the whole one that learnt as long.",
    ("uncut", "hurts"): "The cut costs accuracy that the same epochs do not bring back.",
    ("uncut", "not shown"): "The cut may cost accuracy, bring some or do nothing.",
    ("from-scratch", "helps"): "What the student had learnt is worth keeping: its narrow shape alone is not as good.",
    ("from-scratch", "hurts"): "The narrow shape does better from random weights.",
    ("from-scratch", "not shown"): "The narrow shape may do as well from random weights.",
}


def asked(settings: params.Prune) -> str:
    single, lasso = settings.zeros, settings.lasso
    if isinstance(single, params.Pattern):
        thinned = f"{single.keep} of {single.of} weights kept, by {single.importance.name}"
    else:
        thinned = f"{words.percent(single.share)} zeros, by {single.importance.name}" if single.share else ""
    said = (
        f"{words.percent(settings.sparsity)} of the {settings.of}",
        f"importance {settings.importance.name}",
        f"{settings.ranking} ranking",
        f"channels in multiples of {settings.round_to}",
        words.plural(settings.blocks, "whole block") if settings.blocks else "",
        thinned,
        f"a lasso for {words.plural(lasso.epochs, 'epoch')}" if lasso else "",
        words.plural(settings.steps, "cut") + (f", {settings.pace}" if settings.steps > 1 else ""),
        {"heads": "", "dimensions": "attention loses dimensions", "kept": "attention kept"}[settings.attention],
        f"protected: {', '.join(settings.protect)}" if settings.protect else "",
        f"recovery {settings.recovery.name}",
    )
    return ", ".join(filter(None, said))


# ---------------------------------------------------------------------------------------------- before and after


def before_and_after(found: Findings, timing_confidence: float) -> Table:
    """Latencies are those of the student's file and the pruned one."""
    student, pruned = found.benchmarked.files.student, found.benchmarked.files.pruned
    rows = [
        *_sizes(found.pruned),
        _latency("Latency, one thread", student.one_thread, pruned.one_thread, timing_confidence),
        _latency("Latency, all threads", student.all_threads, pruned.all_threads, timing_confidence),
    ]
    return Table("Before and after", "Measure", ("student", "pruned", "Change"), rows)


def _sizes(pruned: Pruned) -> Iterator[Row]:
    before, after = pruned.before, pruned.after
    yield row(
        "Parameters", sheets.count(before.parameters), sheets.count(after.parameters), _less(pruned.parameters_removed)
    )
    if pruned.zeros:
        yield row("Parameters that are not zero", "", sheets.count(after.nonzero), "")
        yield row("Zeros", "", sheets.share(pruned.zeros), "", hint="of convolutions and linear layers")
    macs = sheets.count(before.macs), sheets.count(after.macs), _less(pruned.macs_removed)
    yield row("Multiply-accumulates", *macs, hint="for one picture")
    sizes = (sheets.number(size, words.megabytes(size)) for size in (before.bytes, after.bytes))
    yield row("File", *sizes, _less(pruned.bytes_removed), hint="float32 ONNX")


def _less(removed: float) -> Cell:
    return sheets.number(-removed, f"{words.percent(abs(removed))} {'less' if removed >= 0 else 'more'}")


def _latency(label: str, before: Timing, after: Timing, confidence: float) -> Row:
    """Where both times lie in their intervals, their ratio lies between those of the ends (Bonferroni)."""
    times, least, most = before.median / after.median, before.low / after.high, before.high / after.low
    joint = words.level(max(0.0, 2 * confidence - 1))
    spread = f"[{least:.2f},{words.SPACE}{most:.2f}] at {joint} or more"
    unsure = "no difference is shown" if least <= 1 <= most else ""
    ratio = Cell(words.faster(times), (spread,), unsure, value=times, low=least, high=most)
    return Row(label, f"median, {words.level(confidence)} interval", [speed.time(before), speed.time(after), ratio])


# ------------------------------------------------------------------------------------------- against the controls


def against(pruned: Pruned) -> Controlled:
    return Controlled("pruned", pruned.seeds, pruned.against, pruned.confidence, NAMES, NOUNS, CLAIMS)


def lessons(pruned: Pruned) -> list[Table]:
    """Of the first seed."""
    if not pruned.controls:
        return []
    learnt: dict[Learner, Lesson] = {"pruned": pruned, **pruned.controls}
    rows = [
        row(NAMES[name], sheets.share(one.val_accuracy), sheets.loss(one.val_loss), sheets.epoch(one))
        for name, one in learnt.items()
    ]
    title = f"Seed {next(iter(pruned.seeds))}, which goes on"
    return [Table(title, "Network", ("Val accuracy", "Val loss", "Best epoch"), rows)]


# ------------------------------------------------------------------------------------------ cuts, layers, the scan


def cuts(pruned: Pruned) -> list[Table]:
    """A single cut is told by the text."""
    if len(pruned.steps) == 1:
        return []
    rows = [
        row(cut, sheets.share(one.removed), sheets.zeros(one.zeros), sheets.share(one.val_accuracy))
        for cut, one in pruned.steps.items()
    ]
    heads = (f"Gone, of the {pruned.of}", "Zeros", "Val accuracy before recovery")
    return [without_empty_columns(Table("Cut by cut", "Cut", heads, rows))]


def layers(pruned: Pruned) -> Table:
    """In network order; a layer that keeps its channels may still have zeros."""
    names = dict.fromkeys((*pruned.channels, *pruned.zeros_by_layer))
    rows = [
        row(name, *_kept(pruned.channels.get(name)), sheets.zeros(pruned.zeros_by_layer.get(name))) for name in names
    ]
    return without_empty_columns(Table("Each layer", "Layer", ("Channels before", "After", "Kept", "Zeros"), rows))


def _kept(width: Width | None) -> tuple[Cell, Cell, Cell]:
    if width is None:
        return Cell(), Cell(), Cell()
    return sheets.count(width.before), sheets.count(width.after), sheets.share(width.after / width.before)


def heads(pruned: Pruned) -> list[Table]:
    rows = [row(name, _arrow(one.heads), _arrow(one.dimension)) for name, one in pruned.heads.items()]
    return [Table("Heads of attention", "Attention", ("Heads", "Dimensions of each"), rows)] if rows else []


def _arrow(width: Width) -> Cell:
    return sheets.number(width.after, f"{width.before} → {width.after}")


def scan(sensitivity: pd.DataFrame) -> list[Table]:
    """Val accuracy after each layer alone lost each share."""
    shares = sorted(set(sensitivity["share"]))
    columns = (sensitivity[name].tolist() for name in ("layer", "share", "val_accuracy", "val_loss"))
    places = {
        (name, share): sheets.share(accuracy, None, None, f"loss {loss:.3f}")
        for name, share, accuracy, loss in zip(*columns, strict=True)
    }
    names = dict.fromkeys(name for name, _ in places)
    rows = [Row(name, "", [places.get((name, share), Cell()) for share in shares]) for name in names]
    title, heads = "What each layer alone can lose", tuple(words.percent(share) for share in shares)
    return [Table(title, "Layer", heads, rows)] if rows else []
