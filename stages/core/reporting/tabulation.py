"""Every table of the report, by its name, in the order in which it is read; what there is not has no name."""

from collections.abc import Sequence

from stages.core.reporting import classes, comparison, devices, gate, judging, pruning, quantization, speed, tables
from stages.core.reporting.comparison import Comparison
from stages.core.reporting.findings import Findings
from stages.core.reporting.lineage import Pedigree
from stages.core.reporting.recommendation import Recommendation
from stages.core.reporting.settings import Asked
from stages.core.reporting.sheets import Table

COMMONEST = 12


def everything(
    found: Findings, pedigree: Pedigree, taken: Recommendation, pairs: Sequence[Comparison], asked: Asked
) -> dict[str, Table]:
    named: dict[str, Table | list[Table]] = {
        "budget": taken.table,
        "answers": tables.answers(found),
        "sizes": tables.sizes(found),
        "latency": speed.latency(found.benchmarked),
        "comparisons": comparison.table(pairs),
        "agreement": tables.agreement(found),
        "seeds": tables.seeds(found),
        "twins": tables.twins(found),
        "companions": tables.companions(found),
        **_pruning(found, asked),
        **_quantization(found, pedigree),
        "parity": gate.parity(found, asked.export),
        "contents": gate.contents(found),
        "operators": gate.operators(found.exported.quantized.operators),
        "reliability": judging.reliability(found),
        "robustness-means": judging.means(found),
        "robustness": judging.robustness(found),
        "mistakes": classes.mistakes(found.confusion, COMMONEST),
        "classes": classes.table(classes.scores(found), found.evaluated.confidence),
        "subgroups": judging.subgroups(found),
        "benchmark": speed.details(found.benchmarked),
        "devices": devices.advice(devices.advise(found, asked.report.budget)),
        "targets": devices.targets(found.converted),
        "measured-devices": devices.measured(found.devices),
    }
    listed = {name: one if isinstance(one, list) else [one] for name, one in named.items()}
    return {name: table for name, one in listed.items() for table in one}


def _pruning(found: Findings, asked: Asked) -> dict[str, Table | list[Table]]:
    return {
        "pruning": pruning.before_and_after(found, asked.benchmark.confidence),
        "pruning-seeds": pruning.against(found.pruned).table(),
        "pruning-lessons": pruning.lessons(found.pruned),
        "cuts": pruning.cuts(found.pruned),
        "channels": pruning.layers(found.pruned),
        "heads": pruning.heads(found.pruned),
        "sensitivity": pruning.scan(found.sensitivity),
    }


def _quantization(found: Findings, pedigree: Pedigree) -> dict[str, Table | list[Table]]:
    told, taken = found.quantized, pedigree.models["quantized"].quantization
    return {
        "quantization": quantization.accuracies(told),
        "quantization-seeds": quantization.against(told).table(),
        "bits": quantization.layers(told),
        "flows": quantization.flows(told),
        "choices": quantization.choices(told),
        "tried": quantization.tried(told, taken) if taken else [],
        "places": quantization.scan(told),
    }
