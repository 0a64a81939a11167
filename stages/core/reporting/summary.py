"""The first screen: what is shipped, what it costs, and how sure that is."""

from dataclasses import dataclass

from stages.core import words
from stages.core.reporting.comparison import Comparison
from stages.core.reporting.findings import SHIPPED, Findings

NOISY = "the interval is too wide to rank files that are close"


@dataclass(frozen=True)
class Tile:
    title: str
    figure: str
    detail: str


def headline(findings: Findings) -> str:
    shipped = findings.benchmarked.files.quantized
    accuracy = f"{words.percent(shipped.accuracy)} {words.interval(shipped.accuracy_low, shipped.accuracy_high)}"
    return (
        f"quantized.onnx: {words.megabytes(shipped.bytes)}, {_gains(findings)}, accuracy {accuracy} on "
        f"{words.plural(findings.benchmarked.pictures, 'test picture')}"
    )


def _gains(findings: Findings) -> str:
    shipped, teacher = findings.benchmarked.files.quantized, findings.benchmarked.files.teacher
    size, speed = words.smaller(teacher.bytes / shipped.bytes), words.faster(shipped.one_thread.times_faster)
    joint = "compared with" if "equally" in size + speed else "than"
    return f"{size} and {speed} {joint} the teacher"


def against_teacher(found: Comparison, confidence: float) -> str:
    """In plain words, also where they are unwelcome."""
    if not found.shown:
        reach = f"{words.points(found.low)} to {words.points(found.high)} points ({words.level(confidence)} interval)"
        return f"{_observed(found)}; no difference is shown. The true one may lie anywhere from {reach}."
    margin = f"on {words.plural(found.lost, 'picture')} only the teacher is right, on {found.won:,} only this network"
    return f"{_observed(found)}, and the pictures show it: {margin} ({chance(found.p)})."


def _observed(found: Comparison) -> str:
    if found.difference == 0:
        return "It is right exactly as often as the teacher"
    size = words.points(abs(found.difference)).removeprefix("+")
    return f"It {'gains' if found.difference > 0 else 'loses'} {size} points against the teacher"


def chance(p: float) -> str:
    return f"p {probability(p)}" if p < 0.001 else f"p = {probability(p)}"


def probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def caution(seed: int) -> str:
    return (
        f"One seed ({seed}): every network was trained once. Differences between networks below the interval mean "
        "nothing, and one that is shown holds for these networks, not for the methods that made them."
    )


def noise(findings: Findings) -> str:
    """Which timings should not be trusted to the last digit."""
    noisy = [name for name in SHIPPED if getattr(findings.benchmarked.files, name).one_thread.noisy]
    return f"Noisy timing of {words.listed(noisy)} on one thread: {NOISY}." if noisy else ""


def tiles(findings: Findings) -> list[Tile]:
    files = findings.benchmarked.files
    shipped, teacher = files.quantized, files.teacher
    times = words.milliseconds(shipped.one_thread.median), words.milliseconds(teacher.one_thread.median)
    spread = words.interval(shipped.accuracy_low, shipped.accuracy_high)
    kernels = shipped.integer_kernels + shipped.float_kernels
    return [
        Tile(
            "File",
            words.smaller(teacher.bytes / shipped.bytes),
            f"{words.megabytes(shipped.bytes)}, the teacher {words.megabytes(teacher.bytes)}",
        ),
        Tile(
            "Latency, one thread",
            words.faster(shipped.one_thread.times_faster),
            f"{times[0]} ms, the teacher {times[1]} ms",
        ),
        Tile(
            "Accuracy on test",
            words.percent(shipped.accuracy),
            f"{spread}, the teacher {words.percent(teacher.accuracy)}",
        ),
        Tile(
            "Integer kernels", f"{shipped.integer_kernels} of {kernels}", "counted in the graph that ONNX Runtime runs"
        ),
    ]


def distillation(found: Comparison, confidence: float) -> tuple[str, str]:
    """Student against control: the word, and the reason for it."""
    if not found.lost + found.won:
        return "Not shown", "Student and control are right on the very same test pictures."
    alone = f"{words.plural(found.won, 'test picture')} only the student is right, on {found.lost:,} only the control"
    reason = f"On {alone} (exact McNemar test, {chance(found.p)})."
    if not found.shown:
        return "Not shown", f"{reason} With one seed and these pictures, distillation may help, hurt or do nothing."
    word = "Helps" if found.won > found.lost else "Hurts"
    return word, f"{reason} That is more than chance at {words.level(confidence)}, for this seed and this student."


def distillation_on_val(findings: Findings) -> str:
    student, control = findings.distilled.student.val_accuracy, findings.distilled.control.val_accuracy
    gain = words.points(findings.distilled.gain_on_val)
    return (
        f"On val, which also chose the epochs, the student reaches {words.percent(student)} and the control "
        f"{words.percent(control)}: {gain} points."
    )
