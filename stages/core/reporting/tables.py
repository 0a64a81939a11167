"""What the page shows in rows and columns, already in words."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import pandas as pd

from stages.core import words
from stages.core.lineage import PARENTS
from stages.core.reporting.findings import SHIPPED, File, Findings, Judged, Timing
from stages.core.reporting.sheets import Cell, Row

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
    judged: list[Judged] = [getattr(findings.evaluated, name) for name in findings.networks]
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
        Row("Agreement", "same answer as another", [_agreement(findings, name) for name in findings.networks]),
    ]


def _agreement(findings: Findings, name: str) -> Cell:
    if name not in PARENTS:
        return NO_PARENT
    return Cell(words.percent(getattr(findings.evaluated, name).agreement), (f"with {PARENTS[name]}",))


@dataclass(frozen=True)
class Seed:
    name: str
    student: str
    control: str
    difference: str


def seeds(findings: Findings) -> list[Seed]:
    """Val accuracies of each seed and their mean; one student alone needs no table."""
    found = findings.distilled
    pairs = [(f"Seed {seed}", twins.student, twins.control) for seed, twins in found.seeds.items()]
    if len(pairs) > 1:
        controls = [control for _, _, control in pairs if control is not None]
        students = mean(student for _, student, _ in pairs)
        pairs.append(("Mean", students, mean(controls) if controls else None))
    elif found.control is None:
        return []
    return [_seed(*pair) for pair in pairs]


def _seed(name: str, student: float, control: float | None) -> Seed:
    if control is None:
        return Seed(name, words.percent(student), "", "")
    return Seed(name, words.percent(student), words.percent(control), words.points(student - control))


def _size(findings: Findings) -> list[Row]:
    teacher = findings.benchmarked.files.teacher
    parameters = _of_files(
        findings, lambda file: _share(words.whole(file.parameters), file.parameters, teacher.parameters)
    )
    macs = _of_files(findings, lambda file: _share(words.millions(file.macs), file.macs, teacher.macs))
    if "control" in findings.networks:
        twin, place = findings.distilled, findings.networks.index("control")
        parameters[place] = _share(words.whole(twin.parameters), twin.parameters, teacher.parameters)
        macs[place] = _share(words.millions(twin.macs), twin.macs, teacher.macs)
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
        *_packed(findings),
        Row("Kernels", "convolutions and matrix products", _of_files(findings, kernels)),
    ]


def _packed(findings: Findings) -> list[Row]:
    """Where any file stores weights in fewer bits than it computes with."""
    shipped = {name: getattr(findings.exported, name) for name in SHIPPED}
    if not any(file.packed for file in shipped.values()):
        return []
    cells = {
        name: Cell(words.plural(file.packed, "tensor"), (f"{words.percent(file.zeros)} zeros",))
        for name, file in shipped.items()
    }
    hint = "in as few bits as their numbers need"
    return [Row("Packed", hint, [cells.get(name, NOT_SHIPPED) for name in findings.networks])]


def kernels(file: File) -> Cell:
    return Cell(f"{file.integer_kernels} of {file.integer_kernels + file.float_kernels} integer")


def _share(text: str, part: int, whole: int) -> Cell:
    return Cell(text, (words.percent(part / whole),))


def _latency(findings: Findings, interval: str) -> list[Row]:
    speed = _of_files(findings, _speed)
    speed[findings.networks.index("teacher")] = REFERENCE
    return [
        Row("One thread", interval, _of_files(findings, lambda file: _timing(file.one_thread))),
        Row("All threads", interval, _of_files(findings, lambda file: _timing(file.all_threads))),
        Row("Against the teacher", "one thread, then all", speed),
        Row("Loading", "once, on one thread", _of_files(findings, _loading)),
    ]


def _loading(file: File) -> Cell:
    return Cell(f"{words.milliseconds(file.load_milliseconds)}{words.SPACE}ms")


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
    return [show(files[name]) if name in files else NOT_SHIPPED for name in findings.networks]


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
