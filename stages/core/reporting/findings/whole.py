"""All of it, and what its parts must agree on."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stages.core.devices import Measured
from stages.core.reporting.findings.base import NETWORKS, PORTABLE, table
from stages.core.reporting.findings.benchmark import Benchmarked
from stages.core.reporting.findings.converting import Converted
from stages.core.reporting.findings.evaluation import Attention, Evaluated
from stages.core.reporting.findings.learning import Distilled, Prepared, Trained
from stages.core.reporting.findings.pruning import Pruned
from stages.core.reporting.findings.quantization import Quantized
from stages.core.reporting.findings.shipping import Exported
from stages.core.running.errors import Refusal


@dataclass(frozen=True)
class Findings:
    prepared: Prepared
    trained: Trained
    distilled: Distilled
    pruned: Pruned
    quantized: Quantized
    evaluated: Evaluated
    exported: Exported
    benchmarked: Benchmarked
    sensitivity: pd.DataFrame
    classes: pd.DataFrame
    confusion: pd.DataFrame
    curves: pd.DataFrame
    reliability: pd.DataFrame
    robustness: pd.DataFrame
    subgroups: pd.DataFrame
    answers: pd.DataFrame
    attention: Attention
    converted: Converted
    devices: list[Measured]

    def __post_init__(self) -> None:
        """A control stands in all of them or in none."""
        wanted = self.distilled.control is not None
        there = {
            "evaluate.json": self.evaluated.control is not None,
            "classes.csv": "control" in set(self.classes["network"]),
            "answers.csv": "control" in self.answers,
        }
        for name, found in there.items():
            if found != wanted:
                told = "has a control and distill.json has none" if found else "has no control"
                raise Refusal(f"{name} {told}: `dvc repro` writes it anew")
        if (self.exported.portable is None) != (self.benchmarked.files.portable is None):
            raise Refusal(f"export.json and benchmark.json disagree on {PORTABLE}.onnx: `dvc repro` writes them anew")

    @property
    def networks(self) -> tuple[str, ...]:
        """Those that were trained."""
        return tuple(name for name in NETWORKS if name != "control" or self.distilled.control)


def read_curves(folder: Path) -> pd.DataFrame:
    paths = [folder / f"{name}.csv" for name in ("teacher", "distill", "prune", "quantize")]
    columns = ("epoch", "train_loss", "val_loss", "val_accuracy")
    return pd.concat([table(path, ("network",), columns) for path in paths], ignore_index=True)
