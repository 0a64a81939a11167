"""All that stands on the page, gathered in the order in which it is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import params, words
from stages.core.reporting import charts, comparison, examples, summary, tables
from stages.core.reporting.findings import NETWORKS, Findings
from stages.core.reporting.lineage import Pedigree

PAIRS = (
    ("quantized", "teacher"),
    ("student", "teacher"),
    ("student", "control"),
    ("pruned", "student"),
    ("quantized", "pruned"),
)
LESSONS = (
    ("teacher", "Teacher", ("teacher",), "Labels alone; of an ensemble, the mean of its members."),
    (
        "distill",
        "Student and control",
        ("student", "control"),
        "The student also hears the teacher; its train loss is another sum.",
    ),
    ("prune", "Recovery", ("pruned",), "Epoch 0 is the network as it was cut, before it learnt on."),
)
SMALL = 64  # pixels; smaller pictures are enlarged as they are, without smoothing
COMMONEST = 12


@dataclass(frozen=True)
class Asked:
    """The settings that the page tells."""

    report: params.Report
    prune: params.Prune
    evaluate: params.Evaluate
    export: params.Export
    benchmark: params.Benchmark
    seed: int


def gather(found: Findings, pedigree: Pedigree, answers: Path, asked: Asked) -> dict[str, Any]:
    confidence = asked.evaluate.confidence
    pairs = {pair: comparison.compare(found.answers, *pair, confidence) for pair in PAIRS}
    return {
        "title": asked.report.title,
        "seed": asked.seed,
        "found": found,
        "networks": NETWORKS,
        "level": words.level(confidence),
        "file_level": words.level(asked.benchmark.confidence),
        "limits": asked.export,
        "comparisons": list(pairs.values()),
        "charts": charts.everything(found),
        "examples": examples.read(answers, found.answers),
        **_first_screen(found, pairs["quantized", "teacher"], asked),
        **_steps(found, pairs["student", "control"], asked),
        **_classes(found),
        **_origin(found, pedigree),
    }


def _first_screen(found: Findings, against_teacher: comparison.Comparison, asked: Asked) -> dict[str, Any]:
    return {
        "headline": summary.headline(found),
        "against_teacher": summary.against_teacher(against_teacher, asked.evaluate.confidence),
        "caution": summary.caution(asked.seed),
        "noise": summary.noise(found),
        "noisy_means": summary.NOISY,
        "tiles": summary.tiles(found),
    }


def _steps(found: Findings, twins: comparison.Comparison, asked: Asked) -> dict[str, Any]:
    rows = charts.trade_off_rows(found)
    files = found.benchmarked.files
    return {
        "steps": tables.steps(found, asked.evaluate.confidence, asked.benchmark.confidence),
        "fronts": {"size": charts.front(rows, "megabytes"), "latency": charts.front(rows, "milliseconds")},
        "lessons": [lesson for lesson in LESSONS if charts.was_taught(found, lesson[2])],
        "distillation": summary.distillation(twins, asked.evaluate.confidence),
        "distillation_on_val": summary.distillation_on_val(found),
        "twins": [
            (name, getattr(found.distilled, name), getattr(found.evaluated, name)) for name in ("student", "control")
        ],
        "pruning": _pruning(asked.prune),
        "gates": tables.gates(found, asked.export),
        "int8_share": files.quantized.bytes / files.pruned.bytes,
    }


def _pruning(settings: params.Prune) -> str:
    return (
        f"{words.percent(settings.sparsity)} of the parameters, importance {settings.importance.name}, "
        f"{settings.ranking} ranking, channels in multiples of {settings.round_to}, recovery {settings.recovery.name}"
    )


def _classes(found: Findings) -> dict[str, Any]:
    classes = tables.per_class(found)
    return {
        "many_classes": len(classes) > charts.COUNTS_FIT,
        "classes": classes,
        "worst_class": tables.worst_class(classes),
        "confusions": tables.confusions(found.confusion, COMMONEST),
    }


def _origin(found: Findings, pedigree: Pedigree) -> dict[str, Any]:
    labels = pedigree.models["quantized"].facts
    machine = found.benchmarked.machine
    return {
        "chain": pedigree.chain,
        "dataset": labels.dataset,
        "image_size": labels.image_size,
        "small": labels.image_size < SMALL,
        "class_names": ", ".join(labels.classes),
        "machine": {name: ", ".join(value) if isinstance(value, list) else value for name, value in machine.items()},
    }
