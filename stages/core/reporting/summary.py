"""The first screen: what is shipped, what it costs, and how sure that is."""

from dataclasses import dataclass

from stages.core import words
from stages.core.reporting import comparison, speed
from stages.core.reporting.comparison import Comparison
from stages.core.reporting.findings import File, Findings
from stages.core.reporting.recommendation import Recommendation

COUNTED = "counted in the graph that ONNX Runtime runs"


@dataclass(frozen=True)
class Tile:
    title: str
    figure: str
    detail: str


def headline(found: Findings, taken: Recommendation) -> str:
    shipped = speed.files(found.benchmarked)[taken.name]
    accuracy = f"{words.percent(shipped.accuracy)} {words.interval(shipped.accuracy_low, shipped.accuracy_high)}"
    gains = "" if taken.name == "teacher" else f", {_gains(found, shipped)}"
    pictures = words.plural(found.benchmarked.pictures, "test picture")
    return f"{taken.name}.onnx: {words.megabytes(shipped.bytes)}{gains}, accuracy {accuracy} on {pictures}"


def _gains(found: Findings, shipped: File) -> str:
    teacher = found.benchmarked.files.teacher
    size, pace = words.smaller(teacher.bytes / shipped.bytes), words.faster(shipped.one_thread.times_faster)
    joint = "compared with" if "equally" in size + pace else "than"
    return f"{size} and {pace} {joint} the teacher"


def against_teacher(found: Comparison) -> str:
    """In plain words, also where they are unwelcome."""
    alike = f", though they are {found.verdict.rpartition('yet ')[2]}" if found.shown and found.equivalent else ""
    if found.shown:
        margin = f"on {words.plural(found.lost, 'picture')} only the teacher is right"
        told = f"{margin}, on {found.won:,} only this network ({comparison.chance(found.p)}, corrected)"
        return f"{_observed(found)}, and the pictures show it: {told}{alike}."
    if found.equivalent:
        return f"{_observed(found)}; no difference is shown, and the two are {found.verdict}."
    low, high = (words.points(end) for end in found.interval)
    reach = f"{low} to {high} points ({words.level(found.confidence)} interval)"
    return f"{_observed(found)}; no difference is shown. The true one may lie anywhere from {reach}."


def _observed(found: Comparison) -> str:
    if found.difference == 0:
        return "It is right exactly as often as the teacher"
    size = words.points(abs(found.difference)).removeprefix("+")
    return f"It {'gains' if found.difference > 0 else 'loses'} {size} points against the teacher"


def caution(seed: int, findings: Findings) -> str:
    others = len(findings.distilled.seeds) - 1
    again = f" but the student, which {words.plural(others, 'other seed')} tried too for the verdict on distillation"
    return (
        f"One seed ({seed}): every network was trained once{again if others > 0 else ''}. Differences between networks "
        "below the interval mean nothing, and one that is shown holds for these networks, not for the methods that "
        "made them."
    )


def tiles(found: Findings, taken: Recommendation) -> list[Tile]:
    """The recommended file beside the teacher's; of the teacher's, what it is."""
    shipped, teacher = speed.files(found.benchmarked)[taken.name], found.benchmarked.files.teacher
    sizes = [words.megabytes(file.bytes) for file in (shipped, teacher)]
    times = [f"{words.milliseconds(file.one_thread.median)}{words.SPACE}ms" for file in (shipped, teacher)]
    gains = [words.smaller(teacher.bytes / shipped.bytes), words.faster(shipped.one_thread.times_faster)]
    kernels = f"{shipped.integer_kernels} of {shipped.integer_kernels + shipped.float_kernels}"
    told = {"File": (gains[0], sizes), "Latency, one thread": (gains[1], times)}
    accuracies = [words.percent(file.accuracy) for file in (shipped, teacher)]
    spread = words.interval(shipped.accuracy_low, shipped.accuracy_high)
    if shipped is teacher:
        beside = [Tile(title, both[0], "the teacher itself") for title, (_, both) in told.items()]
        return [*beside, Tile("Accuracy on test", accuracies[0], spread), Tile("Integer kernels", kernels, COUNTED)]
    beside = [Tile(title, gain, f"{both[0]}, the teacher {both[1]}") for title, (gain, both) in told.items()]
    accuracy = Tile("Accuracy on test", accuracies[0], f"{spread}, the teacher {accuracies[1]}")
    return [*beside, accuracy, Tile("Integer kernels", kernels, COUNTED)]


def distillation(findings: Findings) -> tuple[str, str]:
    """The word for what the teacher did, and the reason for it, over the seeds and on val."""
    found = findings.distilled
    if found.taught_by == "nobody":
        return "No control", "The teacher itself goes on, as it is: nothing was distilled, so that nothing is claimed."
    if found.gain_on_val is None:
        return "No control", "No twin was trained without the teacher, so that nothing is claimed for distillation."
    gain = f"{words.points(found.gain_on_val)} points on val"
    if found.gain_low is None or found.gain_high is None:
        reason = f"One seed, {gain}: how much of that another seed would change cannot be told from one."
    else:
        spread = words.points_interval(found.gain_low, found.gain_high)
        reason = (
            f"{words.plural(len(found.seeds), 'seed')}: the student's accuracy less its control's is {gain} in the "
            f"mean, paired t interval at {words.level(found.confidence)} {spread}. {CLAIMS[found.verdict]}"
        )
    return found.verdict.capitalize(), reason


CLAIMS = {
    "helps": "That is above zero, for this student and these settings.",
    "hurts": "That is below zero, for this student and these settings.",
    "not shown": "Distillation may help, hurt or do nothing.",
}


def pair_on_test(found: Comparison) -> str:
    """The first seed's student against its control."""
    if not found.lost + found.won:
        return "On test, the student that goes on and its control are right on the very same pictures."
    alone = f"{words.plural(found.won, 'test picture')} only the student is right, on {found.lost:,} only the control"
    test = f"exact McNemar test, corrected {comparison.chance(found.p)}"
    reason = f"The student that goes on and its control, on test: on {alone} ({test})."
    if not found.shown:
        return f"{reason} No difference is shown for this pair."
    better, level = "student" if found.won > found.lost else "control", words.level(found.confidence)
    return f"{reason} The {better} of this pair is better, more than chance would have it at {level}."


def goes_on(findings: Findings) -> str:
    """Which student the page is about."""
    seeds = list(findings.distilled.seeds)
    if len(seeds) < 2:
        return ""
    return f"The student that goes on is that of the first seed ({seeds[0]}), not the best one."


def teaching(findings: Findings) -> str:
    found = findings.distilled
    return f"{found.method}, taught by {'the teacher' if found.taught_by == 'teacher' else found.taught_by}"
