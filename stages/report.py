"""One page for a person's eyes: every number comes from what the other stages wrote down."""

from stages.core import devices as measuring
from stages.core import params
from stages.core.reporting import content, findings, lineage, origin, rendering
from stages.core.reporting import studies as studying
from stages.core.reporting import sweeps as sweeping
from stages.core.reporting.findings import Findings
from stages.core.reporting.paper import publishing
from stages.core.reporting.settings import Asked
from stages.core.running.command import Input, Output
from stages.core.running.journal import Run


def main(
    run: Run,
    report: params.Report,
    prune: params.Prune,
    quantize: params.Quantize,
    evaluate: params.Evaluate,
    export: params.Export,
    benchmark: params.Benchmark,
    seed: int,
    prepared: Input,
    trained: Input,
    distilled: Input,
    pruned: Input,
    quantized: Input,
    evaluated: Input,
    exported: Input,
    benchmarked: Input,
    converted: Input,
    devices: Input,
    sensitivity: Input,
    classes: Input,
    confusion: Input,
    reliability: Input,
    robustness: Input,
    subgroups: Input,
    curves: Input,
    studies: Input,
    sweeps: Input,
    answers: Input,
    teacher: Input,
    student: Input,
    control: Input,
    pruned_model: Input,
    quantized_model: Input,
    shipped: Input,
    page: Output,
    paper: Output,
    tables: Output,
    figures: Output,
) -> None:
    distillation = findings.read(distilled, findings.Distilled)
    found = Findings(
        prepared=findings.read(prepared, findings.Prepared),
        trained=findings.read(trained, findings.Trained),
        distilled=distillation,
        pruned=findings.read(pruned, findings.Pruned),
        quantized=findings.read(quantized, findings.Quantized),
        evaluated=findings.read(evaluated, findings.Evaluated),
        exported=findings.read(exported, findings.Exported),
        benchmarked=findings.read(benchmarked, findings.Benchmarked),
        sensitivity=findings.read_sensitivity(sensitivity),
        classes=findings.read_classes(classes),
        confusion=findings.read_confusion(confusion),
        curves=findings.read_curves(curves),
        reliability=findings.read_reliability(reliability),
        robustness=findings.read_robustness(robustness),
        subgroups=findings.read_subgroups(subgroups),
        answers=findings.read_answers(answers, control=distillation.control is not None),
        attention=findings.read_attention(answers),
        converted=findings.read(converted, findings.Converted),
        devices=measuring.read(devices),
    )
    folders = {
        "teacher": teacher,
        "student": student,
        "control": control,
        "pruned": pruned_model,
        "quantized": quantized_model,
    }
    pedigree = lineage.read(folders, shipped / "quantized.onnx", distillation)
    asked = Asked(report, prune, quantize, evaluate, export, benchmark, seed)
    source = origin.find("report", benchmarked)
    gathered = content.gather(found, pedigree, source, answers, studying.read(studies), sweeping.read(sweeps), asked)
    page.write_text(rendering.render(gathered), encoding="utf-8")
    publishing.publish(gathered, paper, tables, figures)
