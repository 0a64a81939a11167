"""What the page shows in rows and columns, already in words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.core.params import Export
from stages.core.reporting import words
from stages.core.reporting.findings import NETWORKS, SHIPPED, File, Findings, Judged, Timing


@dataclass(frozen=True)
class Cell:
    text: str
    detail: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    hint: str
    cells: list[Cell]


NOT_SHIPPED = Cell("not shipped")


def steps(findings: Findings, confidence: float) -> dict[str, list[Row]]:
    """Every network is a column, every measurement a row."""
    level = f"{confidence * 100:g} %"
    return {
        "Answers on test": _answers(findings, f"{level} Wilson interval below"),
        "Size": _size(findings),
        "Latency of the file": _latency(findings, f"median of the rounds, {level} interval below"),
    }


def _answers(findings: Findings, interval: str) -> list[Row]:
    judged: list[Judged] = [getattr(findings.evaluated, name) for name in NETWORKS]
    return [
        Row(
            "Accuracy",
            interval,
            [Cell(words.percent(one.accuracy), words.interval(one.accuracy_low, one.accuracy_high)) for one in judged],
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
        return Cell("no parent")
    parent, share = shares[name]
    return Cell(words.percent(share), f"with {parent}")


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
        Row("Parameters", "share of the teacher's below", parameters),
        Row("Multiply-accumulates", "for one picture", macs),
        Row(
            "File",
            "ONNX, bytes and share below",
            _of_files(
                findings,
                lambda file: Cell(
                    words.megabytes(file.bytes),
                    f"{words.whole(file.bytes)} B · {words.percent(file.bytes / teacher.bytes)}",
                ),
            ),
        ),
        Row("Weights", "as stored in the file", _of_files(findings, lambda file: Cell(file.weights))),
        Row("Kernels", "convolutions and matrix products", _of_files(findings, kernels)),
    ]


def kernels(file: File) -> Cell:
    return Cell(f"{file.integer_kernels} of {file.integer_kernels + file.float_kernels} integer")


def _share(text: str, part: int, whole: int) -> Cell:
    return Cell(text, words.percent(part / whole))


def _latency(findings: Findings, interval: str) -> list[Row]:
    return [
        Row("One thread", interval, _of_files(findings, lambda file: _timing(file.one_thread))),
        Row("All threads", interval, _of_files(findings, lambda file: _timing(file.all_threads))),
        Row(
            "Against the teacher",
            "one thread, all threads below",
            _of_files(
                findings,
                lambda file: Cell(
                    f"{factor_of(file.one_thread)}",
                    f"{factor_of(file.all_threads)} on all threads",
                ),
            ),
        ),
    ]


def factor_of(timing: Timing) -> str:
    return words.faster(timing.times_faster)


def _timing(timing: Timing) -> Cell:
    spread = (
        f"[{words.milliseconds(timing.low)}, {words.milliseconds(timing.high)}] · p95 {words.milliseconds(timing.p95)}"
    )
    return Cell(f"{words.milliseconds(timing.median)} ms", spread, "noisy" if timing.noisy else "")


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
                "logit": f"{parity.largest_difference:.2g}",
                "kernels": kernels(file).text,
                "network": words.percent(getattr(findings.evaluated, name).accuracy),
                "shipped": words.percent(file.accuracy),
                "passed": parity.agreement >= limits.min_agreement and parity.accuracy_drop <= limits.max_accuracy_drop,
            }
        )
    return rows


def per_class(findings: Findings) -> list[dict[str, Any]]:
    """The quantized network, with counts, since a share of few pictures says little."""
    right = findings.confusion[findings.confusion["actual"] == findings.confusion["predicted"]]["actual"].value_counts()
    said = findings.confusion["predicted"].value_counts()
    rows = findings.classes[findings.classes["network"] == "quantized"]
    return [
        {
            "name": row["class"],
            "pictures": int(row["pictures"]),
            "right": int(right.get(row["class"], 0)),
            "said": int(said.get(row["class"], 0)),
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1"]),
        }
        for row in rows.to_dict("records")
    ]


def worst_class(classes: list[dict[str, Any]]) -> str:
    judged = [row for row in classes if row["pictures"]]
    worst = min(judged, key=lambda row: row["f1"])
    if worst["f1"] == 1:
        return "Every class is answered without a mistake."
    others = sum(row["f1"] == worst["f1"] for row in judged) - 1
    beside = f" ({words.plural(others, 'other class')} as bad)" if others else ""
    return (
        f"Worst class: {worst['name']}{beside}, F1 {words.percent(worst['f1'])}, "
        f"{worst['right']:,} of {words.plural(worst['pictures'], 'picture')} right."
    )


def confusions(confusion: pd.DataFrame, most: int) -> list[dict[str, Any]]:
    """The commonest mistakes: with a hundred classes, nobody finds them in a heat map."""
    wrong = confusion[confusion["actual"] != confusion["predicted"]]
    counts = wrong.groupby(["actual", "predicted"], sort=True).size().sort_values(ascending=False, kind="stable")
    return [
        {"actual": actual, "predicted": predicted, "count": int(count)}
        for (actual, predicted), count in counts.head(most).items()
    ]
