"""All that stands in the report, gathered in the order in which it is read.

`tables` and `charts` are by name: whoever writes them elsewhere than on the page finds all of them there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import words
from stages.core.reporting import (
    attention,
    charts,
    classes,
    comparison,
    examples,
    gate,
    judging_charts,
    learning_charts,
    neighbours,
    pruning,
    pruning_charts,
    quantization,
    quantization_charts,
    recommendation,
    speed,
    studies,
    study_charts,
    summary,
    sweep_charts,
    sweeps,
    tabulation,
)
from stages.core.reporting.comparison import Comparison
from stages.core.reporting.findings import Findings
from stages.core.reporting.lineage import Pedigree
from stages.core.reporting.origin import SHORT, Origin
from stages.core.reporting.recommendation import Recommendation
from stages.core.reporting.settings import Asked
from stages.core.reporting.studies import Study
from stages.core.reporting.sweeps import Sweep

PAIRS = (
    ("quantized", "teacher"),
    ("pruned", "teacher"),
    ("student", "teacher"),
    ("student", "control"),
    ("pruned", "student"),
    ("quantized", "pruned"),
)
BYTES = "_bytes"  # at the end of a fact's name
SMALL = 64  # pixels; smaller pictures are enlarged as they are, without smoothing


@dataclass(frozen=True)
class Lesson:
    """Learning curves that stand side by side."""

    key: str
    heading: str
    networks: tuple[str, ...]
    note: str


def gather(
    found: Findings,
    pedigree: Pedigree,
    origin: Origin,
    answers: Path,
    swept: Mapping[str, Study],
    repeated: Mapping[str, Sweep],
    asked: Asked,
) -> dict[str, Any]:
    wanted = [pair for pair in PAIRS if set(pair) <= set(found.networks)]
    pairs = comparison.compare(found.answers, wanted, asked.evaluate.confidence, asked.report.margin)
    taken = recommendation.recommend(found, asked.report.budget)
    others = neighbours.points(repeated, found.evaluated.test)
    return {
        "title": asked.report.title,
        "seed": asked.seed,
        "found": found,
        "networks": found.networks,
        "level": words.level(asked.evaluate.confidence),
        "file_level": words.level(asked.benchmark.confidence),
        "limits": asked.export,
        "gate_level": words.level(asked.export.confidence),
        "comparisons": list(pairs.values()),
        "tables": tabulation.everything(found, pedigree, taken, list(pairs.values()), asked),
        "others": others,
        "charts": _charts(found, others) | _study_charts(swept) | sweep_charts.draw(repeated),
        **_first_screen(found, taken, pairs, asked),
        "studies": swept,
        "said": studies,
        "sweeps": repeated,
        "sweeping": sweeps,
        **_steps(found),
        **_distillation(found, pairs.get(("student", "control"))),
        "pruning": {"asked": pruning.asked(asked.prune), "verdicts": pruning.against(found.pruned).verdicts()},
        "quantization": _quantization(found, asked),
        "gate": _gate(found),
        **_judged(found, answers),
        **_classes(found, answers),
        "measured": speed.told(found.benchmarked),
        **_origin(found, pedigree, origin),
    }


def _first_screen(
    found: Findings, taken: Recommendation, pairs: Mapping[tuple[str, str], Comparison], asked: Asked
) -> dict[str, Any]:
    """The portable file answers as the quantized network; the teacher is beside nobody."""
    network = taken.name if taken.name in found.networks else "quantized"
    beside = pairs.get((network, "teacher"))
    return {
        "recommended": taken,
        "headline": summary.headline(found, taken),
        "against_teacher": summary.against_teacher(beside) if beside else "",
        "caution": summary.caution(asked.seed, found),
        "noise": speed.noise(found.benchmarked),
        "tiles": summary.tiles(found, taken),
    }


def _charts(found: Findings, others: list[dict[str, Any]]) -> dict[str, charts.Specification]:
    drawn = charts.everything(found, others)
    for module in (learning_charts, pruning_charts, quantization_charts, judging_charts):
        drawn |= module.everything(found)
    return drawn


def _study_charts(swept: Mapping[str, Study]) -> dict[str, charts.Specification]:
    return {f"study-{name}": charts.specification(study_charts.draw(study)) for name, study in swept.items()}


def _steps(found: Findings) -> dict[str, Any]:
    return {
        "fronts": {name: charts.front(rows, cost) for name, (rows, cost, _) in charts.costs(found).items()},
        "energy": found.benchmarked.energy,
        "lessons": [lesson for lesson in _lessons(found) if learning_charts.was_taught(found, lesson.networks)],
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


def _distillation(found: Findings, twins: Comparison | None) -> dict[str, Any]:
    return {
        "distillation": summary.distillation(found),
        "pair_on_test": summary.pair_on_test(twins) if twins else "",
        "goes_on": summary.goes_on(found),
        "teaching": summary.teaching(found),
    }


def _quantization(found: Findings, asked: Asked) -> dict[str, Any]:
    return {
        "asked": quantization.method(asked.quantize.method),
        "recovery": quantization.recovery(asked.quantize, found.quantized),
        "verdicts": quantization.against(found.quantized).verdicts(),
        "flowing": quantization.flowing(found.quantized),
    }


def _gate(found: Findings) -> dict[str, Any]:
    file, machine = found.exported.quantized, found.benchmarked.machine
    return {
        "conversions": gate.conversions(file.operators),
        "portable": gate.portable(file, machine),
        "integer_share": file.tensor_bytes / found.exported.pruned.tensor_bytes,
    }


def _judged(found: Findings, answers: Path) -> dict[str, Any]:
    return {
        "kinds": judging_charts.kinds(found),
        "looking": attention.read(answers / "attention", found.attention),
        "layers_looked_at": found.attention.layers,
        "why_not_looking": found.attention.reason,
    }


def _classes(found: Findings, answers: Path) -> dict[str, Any]:
    scores, kept = classes.scores(found), examples.read(answers, found.answers)
    commonest = classes.confusions(found.confusion, tabulation.COMMONEST)
    failures = examples.failures(kept, commonest)
    shown = {one.number for failure in failures for one in failure.pictures}
    return {
        "many_classes": len(scores) > charts.COUNTS_FIT,
        "worst_class": classes.worst_class(scores),
        "failures": failures,
        "examples": [one for one in kept if one.number not in shown],
        "kept": len(kept),
    }


def _origin(found: Findings, pedigree: Pedigree, origin: Origin) -> dict[str, Any]:
    labels = pedigree.models["quantized"].facts
    machine = found.benchmarked.machine
    others = machine.model_extra or {}
    return {
        "origin": origin,
        "digests": {
            "Commit": origin.commit[:SHORT],
            "dvc.lock, without the report": origin.lock[:SHORT],
            "Data, as prepared": origin.data[:SHORT],
            "Test pictures": found.evaluated.test[:SHORT],
        },
        "chain": pedigree.chain,
        "dataset": labels.dataset,
        "image_size": labels.image_size,
        "small": labels.image_size < SMALL,
        "class_names": ", ".join(labels.classes),
        "machine": dict(_machine(name, value) for name, value in others.items()),
        "products": f"{machine.integer_products}: {machine.integer_products_because}",
    }


def _machine(name: str, value: Any) -> tuple[str, str]:
    """Of a fact, how it is called and told."""
    if name.endswith(BYTES) and isinstance(value, int):
        return words.spelt(name.removesuffix(BYTES)), words.gigabytes(value)
    return words.spelt(name), _fact(value)


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(" ".join(_machine(name, one)) for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    return "none" if value is None else str(value)
