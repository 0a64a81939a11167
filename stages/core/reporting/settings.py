"""The settings that the page tells."""

from dataclasses import dataclass

from stages.core import params


@dataclass(frozen=True)
class Asked:
    report: params.Report
    prune: params.Prune
    quantize: params.Quantize
    evaluate: params.Evaluate
    export: params.Export
    benchmark: params.Benchmark
    seed: int
