"""What the networks answered on test."""

from pathlib import Path
from typing import Self

import pandas as pd
from pydantic import model_validator

from stages.core.lineage import PARENTS
from stages.core.reporting.findings.base import NETWORKS, Found, read, table

INTERVAL = ("accuracy", "accuracy_low", "accuracy_high")


class WorstClass(Found):
    name: str
    recall: float
    recall_low: float
    recall_high: float
    pictures: int


class Beside(Found):
    """Answers beside another network's; `lost` pictures only the other gets right, `won` only this one."""

    agreement: float
    agreement_low: float
    agreement_high: float
    flipped: float
    lost: int
    won: int
    worst_class: str
    worst_class_drop: float


class Judged(Found):
    """`robustness_mean` is null where none was measured."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    top_accuracy: float
    top_accuracy_low: float
    top_accuracy_high: float
    loss: float
    macro_f1: float
    calibration_error: float
    worst_class: WorstClass
    against: dict[str, Beside]
    robustness: dict[str, float]
    robustness_mean: float | None


class Evaluated(Found):
    """`test` is the digest of the pictures and their labels, `top` counts the answers that a picture is allowed."""

    pictures: int
    test: str
    top: int
    confidence: float
    teacher: Judged
    student: Judged
    control: Judged | None = None
    pruned: Judged
    quantized: Judged

    @model_validator(mode="after")
    def _parents_are_there(self) -> Self:
        for name, parent in PARENTS.items():
            judged = getattr(self, name)
            if judged is not None and parent not in judged.against:
                raise ValueError(f"{name} is not compared with {parent}")
        return self


class Looked(Found):
    """One picture that teacher and student were asked where they look."""

    picture: int
    label: str
    teacher: str
    teacher_confidence: float
    student: str
    student_confidence: float


class Attention(Found):
    """`reason` says why there are no pictures, or others than asked for."""

    layers: dict[str, str | None]
    reason: str
    pictures: list[Looked]


def read_classes(path: Path) -> pd.DataFrame:
    return table(path, ("network", "class"), ("precision", "recall", "f1", "pictures"))


def read_confusion(path: Path) -> pd.DataFrame:
    return table(path, ("actual", "predicted"), ())


def read_reliability(path: Path) -> pd.DataFrame:
    return table(path, ("network",), ("bin", "from", "to", "pictures", "confidence", *INTERVAL))


def read_robustness(path: Path) -> pd.DataFrame:
    return table(path, ("network", "kind"), ("severity", "amount", "pictures", *INTERVAL))


def read_subgroups(path: Path) -> pd.DataFrame:
    return table(path, ("network", "column", "group"), ("pictures", *INTERVAL))


def read_answers(folder: Path, control: bool) -> pd.DataFrame:
    networks = tuple(name for name in NETWORKS if name != "control" or control)
    confidences = tuple(f"{name}_confidence" for name in networks)
    return table(folder / "answers.csv", ("name", "label", *networks), ("picture", *confidences))


def read_attention(folder: Path) -> Attention:
    return read(folder / "attention" / "attention.json", Attention)
