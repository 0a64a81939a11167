"""The quantized network, class by class."""

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from stages.core import statistics, words
from stages.core.reporting import sheets
from stages.core.reporting.findings import Findings
from stages.core.reporting.sheets import Cell, Row, Table


@dataclass(frozen=True)
class ClassScore:
    """With counts, since a share of few pictures says little; `said`: how often the class was the answer."""

    name: str
    precision: float
    recall: float
    f1: float
    pictures: int
    right: int
    said: int


def scores(findings: Findings) -> list[ClassScore]:
    """The quantized network, class by class."""
    rows = findings.classes[findings.classes["network"] == "quantized"]
    columns = (rows[name].tolist() for name in ("class", "precision", "recall", "f1", "pictures"))
    said = Counter(findings.confusion["predicted"].tolist())
    pairs = pair_counts(findings.confusion)
    return [
        ClassScore(name, precision, recall, f1, int(pictures), pairs[name, name], said[name])
        for name, precision, recall, f1, pictures in zip(*columns, strict=True)
    ]


def table(scores: list[ClassScore], confidence: float) -> Table:
    """Recall with its interval: a share of the pictures of one class."""
    rows = [Row(one.name, "", _cells(one, confidence)) for one in scores]
    note = f"In brackets, {words.level(confidence)} intervals (Wilson)."
    return Table("Each class", "Class", ("Test pictures", "Right", "Recall", "Precision", "F1"), rows, note)


def _cells(one: ClassScore, confidence: float) -> list[Cell]:
    recall = sheets.absent("no test picture")
    if one.pictures:
        recall = sheets.share(one.recall, *statistics.wilson(one.right, one.pictures, confidence))
    precision = sheets.share(one.precision) if one.said else sheets.absent("never predicted")
    return [sheets.count(one.pictures), sheets.count(one.right), recall, precision, sheets.share(one.f1)]


def worst_class(scores: list[ClassScore]) -> str:
    judged = [score for score in scores if score.pictures]
    worst = min(judged, key=lambda score: score.f1)
    if worst.f1 == 1:
        return "Every class is answered without a mistake."
    others = sum(score.f1 == worst.f1 for score in judged) - 1
    beside = f" ({words.plural(others, 'other class')} as bad)" if others else ""
    return (
        f"Worst class: {worst.name}{beside}, F1 {words.percent(worst.f1)}, "
        f"{worst.right:,} of {words.plural(worst.pictures, 'picture')} right."
    )


def pair_counts(confusion: pd.DataFrame) -> Counter[tuple[str, str]]:
    """Pictures for each pair of what is shown and what is answered."""
    return Counter(zip(confusion["actual"].tolist(), confusion["predicted"].tolist(), strict=True))


def confusions(confusion: pd.DataFrame, most: int) -> list[tuple[str, str, int]]:
    """The commonest mistakes: with a hundred classes, nobody finds them in a heat map."""
    wrong = [(*pair, count) for pair, count in pair_counts(confusion).items() if pair[0] != pair[1]]
    return sorted(wrong, key=lambda one: (-one[2], one[0], one[1]))[:most]


def mistakes(confusion: pd.DataFrame, most: int) -> list[Table]:
    rows = [
        Row(actual, "", [Cell(answer), sheets.count(count)]) for actual, answer, count in confusions(confusion, most)
    ]
    return [Table("Commonest mistakes", "Actual", ("Predicted", "Pictures"), rows)] if rows else []
