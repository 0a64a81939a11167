"""All that stands on the page, gathered in the order in which it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import params, words
from stages.core.reporting import (
    charts,
    comparison,
    examples,
    gate,
    pruning,
    pruning_charts,
    quantization,
    quantization_charts,
    studies,
    study_charts,
    summary,
    tables,
)
from stages.core.reporting.findings import Findings
from stages.core.reporting.lineage import Pedigree
from stages.core.reporting.studies import Study

PAIRS = (
    ("quantized", "teacher"),
    ("student", "teacher"),
    ("student", "control"),
    ("pruned", "student"),
    ("quantized", "pruned"),
)
SMALL = 64  # pixels; smaller pictures are enlarged as they are, without smoothing
COMMONEST = 12


@dataclass(frozen=True)
class Asked:
    """The settings that the page tells."""

    report: params.Report
    prune: params.Prune
    quantize: params.Quantize
    evaluate: params.Evaluate
    export: params.Export
    benchmark: params.Benchmark
    seed: int


@dataclass(frozen=True)
class Lesson:
    """Learning curves that stand side by side."""

    key: str
    heading: str
    networks: tuple[str, ...]
    note: str


def gather(
    found: Findings, pedigree: Pedigree, answers: Path, swept: Mapping[str, Study], asked: Asked
) -> dict[str, Any]:
    confidence = asked.evaluate.confidence
    wanted = [pair for pair in PAIRS if set(pair) <= set(found.networks)]
    pairs = {pair: comparison.compare(found.answers, *pair, confidence) for pair in wanted}
    return {
        "title": asked.report.title,
        "seed": asked.seed,
        "found": found,
        "networks": found.networks,
        "level": words.level(confidence),
        "file_level": words.level(asked.benchmark.confidence),
        "limits": asked.export,
        "gate_level": words.level(asked.export.confidence),
        "comparisons": list(pairs.values()),
        "charts": _charts(found) | _study_charts(swept),
        "examples": examples.read(answers, found.answers),
        **_first_screen(found, pairs["quantized", "teacher"], asked),
        "studies": swept,
        "said": studies,
        **_steps(found, asked),
        **_distillation(found, pairs.get(("student", "control")), asked),
        "pruning": _pruning(found, asked),
        "quantization": _quantization(found, pedigree, asked),
        "gate": _gate(found, asked),
        **_classes(found),
        **_origin(found, pedigree),
    }


def _first_screen(found: Findings, against_teacher: comparison.Comparison, asked: Asked) -> dict[str, Any]:
    return {
        "headline": summary.headline(found),
        "against_teacher": summary.against_teacher(against_teacher, asked.evaluate.confidence),
        "caution": summary.caution(asked.seed, found),
        "noise": summary.noise(found),
        "noisy_means": summary.NOISY,
        "tiles": summary.tiles(found),
    }


def _charts(found: Findings) -> dict[str, charts.Specification]:
    return charts.everything(found) | pruning_charts.everything(found) | quantization_charts.everything(found)


def _study_charts(swept: Mapping[str, Study]) -> dict[str, charts.Specification]:
    return {f"study-{name}": charts.specification(study_charts.draw(study)) for name, study in swept.items()}


def _steps(found: Findings, asked: Asked) -> dict[str, Any]:
    rows = charts.trade_off_rows(found)
    return {
        "steps": tables.steps(found, asked.evaluate.confidence, asked.benchmark.confidence),
        "fronts": {"size": charts.front(rows, "megabytes"), "latency": charts.front(rows, "milliseconds")},
        "lessons": [lesson for lesson in _lessons(found) if charts.was_taught(found, lesson.networks)],
    }


def _lessons(found: Findings) -> list[Lesson]:
    twins = ("student", "control") if found.distilled.control else ("student",)
    faint = " Faint lines are the other seeds." if len(found.distilled.seeds) > 1 else ""
    who = "the teacher" if found.distilled.taught_by == "teacher" else found.distilled.taught_by
    heard = f"The student also hears {who}; its train loss is another sum.{faint}"
    calibrated = "Epoch 0 is the network as it was calibrated; one that came down a ladder begins at its foot."
    return [
        Lesson("teacher", "Teacher", ("teacher",), "Labels alone; of an ensemble, the mean of its members."),
        Lesson("distill", " and ".join(twins).capitalize(), twins, heard),
        Lesson("prune", "Recovery after pruning", ("pruned",), "Epoch 0 is the network as it was cut."),
        Lesson(
            "quantize",
            "Recovery after quantization",
            ("quantized",),
            calibrated,
        ),
    ]


def _distillation(found: Findings, twins: comparison.Comparison | None, asked: Asked) -> dict[str, Any]:
    lessons = {"student": found.distilled.student, "control": found.distilled.control}
    return {
        "distillation": summary.distillation(found),
        "pair_on_test": summary.pair_on_test(twins, asked.evaluate.confidence) if twins else "",
        "goes_on": summary.goes_on(found),
        "teaching": summary.teaching(found),
        "seeds": tables.seeds(found),
        "twins": [(name, lesson, getattr(found.evaluated, name)) for name, lesson in lessons.items() if lesson],
    }


def _pruning(found: Findings, asked: Asked) -> dict[str, Any]:
    return {
        "asked": pruning.asked(asked.prune),
        "before_and_after": pruning.before_and_after(found, asked.benchmark.confidence),
        "verdicts": pruning.against(found.pruned).verdicts(),
        "seeds": pruning.against(found.pruned).table(),
        "lessons": pruning.lessons(found.pruned),
        "cuts": pruning.cuts(found.pruned),
        "layers": pruning.layers(found.pruned),
        "heads": pruning.heads(found.pruned),
        "scan": pruning.scan(found.sensitivity),
    }


def _quantization(found: Findings, pedigree: Pedigree, asked: Asked) -> dict[str, Any]:
    told, controlled = found.quantized, quantization.against(found.quantized)
    taken = pedigree.models["quantized"].quantization
    return {
        "asked": quantization.method(asked.quantize.method),
        "recovery": quantization.recovery(asked.quantize, told),
        "accuracies": quantization.accuracies(told),
        "verdicts": controlled.verdicts(),
        "seeds": controlled.table(),
        "layers": quantization.layers(told),
        "flowing": quantization.flowing(told),
        "flows": quantization.flows(told),
        "choices": quantization.choices(told),
        "tried": quantization.tried(told, taken) if taken else [],
        "scan": quantization.scan(told),
    }


def _gate(found: Findings, asked: Asked) -> dict[str, Any]:
    file, machine = found.exported.quantized, found.benchmarked.machine
    return {
        "parity": gate.parity(found, asked.export),
        "contents": gate.contents(found),
        "operators": gate.operators(file.operators),
        "conversions": gate.conversions(file.operators),
        "portable": gate.portable(file, machine),
        "integer_share": file.tensor_bytes / found.exported.pruned.tensor_bytes,
    }


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
    others = machine.model_extra or {}
    return {
        "chain": pedigree.chain,
        "dataset": labels.dataset,
        "image_size": labels.image_size,
        "small": labels.image_size < SMALL,
        "class_names": ", ".join(labels.classes),
        "machine": {name: ", ".join(value) if isinstance(value, list) else value for name, value in others.items()},
        "products": f"{machine.integer_products}: {machine.integer_products_because}",
    }
