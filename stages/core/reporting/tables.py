"""What the page shows in rows and columns, already in words."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from stages.core import words
from stages.core.params import Export
from stages.core.reporting.findings import NETWORKS, SHIPPED, File, Findings, Judged, Timing


@dataclass(frozen=True)
class Cell:
    """`quiet` says why there is no number."""

    text: str = ""
    details: tuple[str, ...] = ()
    warning: str = ""
    quiet: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    hint: str
    cells: list[Cell]


NOT_SHIPPED, NO_PARENT, REFERENCE = Cell(quiet="not shipped"), Cell(quiet="no parent"), Cell(quiet="reference")


def steps(findings: Findings, confidence: float, timing_confidence: float) -> dict[str, list[Row]]:
    """Every network is a column, every measurement a row."""
    level, timing_level = words.level(confidence), words.level(timing_confidence)
    return {
        "Answers on test": _answers(findings, f"{level} interval (Wilson)"),
        "Size": _size(findings),
        "Latency of the file": _latency(findings, f"median, {timing_level} interval, p95"),
    }


def _answers(findings: Findings, interval: str) -> list[Row]:
    judged: list[Judged] = [getattr(findings.evaluated, name) for name in NETWORKS]
    return [
        Row(
            "Accuracy",
            interval,
            [
                Cell(words.percent(one.accuracy), (words.interval(one.accuracy_low, one.accuracy_high),))
                for one in judged
            ],
        ),
        Row("Loss", "cross entropy", [Cell(f"{one.loss:.3f}") for one in judged]),
        Row("Macro F1", "mean over the classes", [Cell(words.percent(one.macro_f1)) for one in judged]),
        Row("Calibration error", "expected, ECE", [Cell(words.percent(one.calibration_error)) for one in judged]),
        Row("Agreement with parent", "same answer", [_agreement(findings, name) for name in NETWORKS]),
    ]


def _agreement(findings: Findings, name: str) -> Cell:
    evaluated = findings.evaluated
    shares = {
        "student": ("teacher", evaluated.student.agreement),
        "control": ("teacher", evaluated.control.agreement),
        "pruned": ("student", evaluated.pruned.agreement),
        "quantized": ("pruned", evaluated.quantized.agreement),
    }
    if name not in shares:
        return NO_PARENT
    parent, share = shares[name]
    return Cell(words.percent(share), (f"with {parent}",))


def _size(findings: Findings) -> list[Row]:
    teacher = findings.benchmarked.files.teacher
    control = findings.distilled
    parameters = _of_files(
        findings, lambda file: _share(words.whole(file.parameters), file.parameters, teacher.parameters)
    )
    macs = _of_files(findings, lambda file: _share(words.millions(file.macs), file.macs, teacher.macs))
    parameters[NETWORKS.index("control")] = _share(
        words.whole(control.parameters), control.parameters, teacher.parameters
    )
    macs[NETWORKS.index("control")] = _share(words.millions(control.macs), control.macs, teacher.macs)
    return [
        Row("Parameters", "and share of the teacher's", parameters),
        Row("Multiply-accumulates", "for one picture", macs),
        Row(
            "File",
            "ONNX, and share of the teacher's",
            _of_files(
                findings,
                lambda file: Cell(
                    words.megabytes(file.bytes),
                    (f"{words.whole(file.bytes)}{words.SPACE}B", words.percent(file.bytes / teacher.bytes)),
                ),
            ),
        ),
        Row("Weights", "as stored in the file", _of_files(findings, lambda file: Cell(file.weights))),
        Row("Kernels", "convolutions and matrix products", _of_files(findings, kernels)),
    ]


def kernels(file: File) -> Cell:
    return Cell(f"{file.integer_kernels} of {file.integer_kernels + file.float_kernels} integer")


def _share(text: str, part: int, whole: int) -> Cell:
    return Cell(text, (words.percent(part / whole),))


def _latency(findings: Findings, interval: str) -> list[Row]:
    speed = _of_files(findings, _speed)
    speed[NETWORKS.index("teacher")] = REFERENCE
    return [
        Row("One thread", interval, _of_files(findings, lambda file: _timing(file.one_thread))),
        Row("All threads", interval, _of_files(findings, lambda file: _timing(file.all_threads))),
        Row("Against the teacher", "one thread, then all", speed),
    ]


def _speed(file: File) -> Cell:
    return Cell(words.faster(file.one_thread.times_faster), (words.faster(file.all_threads.times_faster),))


def _timing(timing: Timing) -> Cell:
    spread = f"[{words.milliseconds(timing.low)}, {words.milliseconds(timing.high)}]"
    slowest = f"p95 {words.milliseconds(timing.p95)}"
    return Cell(
        f"{words.milliseconds(timing.median)}{words.SPACE}ms", (spread, slowest), "noisy" if timing.noisy else ""
    )


def _of_files(findings: Findings, show: Callable[[File], Cell]) -> list[Cell]:
    files = {name: getattr(findings.benchmarked.files, name) for name in SHIPPED}
    return [show(files[name]) if name in files else NOT_SHIPPED for name in NETWORKS]


def gates(findings: Findings, limits: Export) -> list[dict[str, str | bool]]:
    """Each file beside the network it was made from."""
    rows: list[dict[str, str | bool]] = []
    for name in SHIPPED:
        parity, file = getattr(findings.exported, name), getattr(findings.benchmarked.files, name)
        rows.append(
            {
                "file": f"{name}.onnx",
                "agreement": words.percent(parity.agreement),
                "difference": words.points(-parity.accuracy_drop),
                "logit": words.tiny(parity.largest_difference),
                "kernels": kernels(file).text,
                "network": words.percent(getattr(findings.evaluated, name).accuracy),
                "shipped": words.percent(file.accuracy),
                "passed": parity.agreement >= limits.min_agreement and parity.accuracy_drop <= limits.max_accuracy_drop,
            }
        )
    return rows


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


def per_class(findings: Findings) -> list[ClassScore]:
    """The quantized network, class by class."""
    rows = findings.classes[findings.classes["network"] == "quantized"]
    columns = (rows[name].tolist() for name in ("class", "precision", "recall", "f1", "pictures"))
    said = Counter(findings.confusion["predicted"].tolist())
    pairs = pair_counts(findings.confusion)
    return [
        ClassScore(name, precision, recall, f1, int(pictures), pairs[name, name], said[name])
        for name, precision, recall, f1, pictures in zip(*columns, strict=True)
    ]


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


def confusions(confusion: pd.DataFrame, most: int) -> list[dict[str, str | int]]:
    """The commonest mistakes: with a hundred classes, nobody finds them in a heat map."""
    wrong = [(pair, count) for pair, count in pair_counts(confusion).items() if pair[0] != pair[1]]
    ordered = sorted(wrong, key=lambda item: (-item[1], item[0]))
    return [{"actual": pair[0], "predicted": pair[1], "count": count} for pair, count in ordered[:most]]
