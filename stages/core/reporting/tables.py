"""The networks beside each other: what they answer, what they take, and who learnt what."""

from collections.abc import Callable
from statistics import mean

from stages.core import words
from stages.core.reporting import sheets
from stages.core.reporting.findings import SHIPPED, Beside, Companion, File, Findings, Judged, Lesson
from stages.core.reporting.sheets import MEAN, Cell, Row, Table

NOT_SHIPPED = sheets.absent("not shipped")


def judged(found: Findings) -> dict[str, Judged]:
    return {name: getattr(found.evaluated, name) for name in found.networks}


def answers(found: Findings) -> Table:
    top = found.evaluated.top
    rows = [Row(name, "", _answers(one)) for name, one in judged(found).items()]
    heads = ("Accuracy", f"Among the first {top}", "Macro F1", "Loss", "Calibration error", "Worst class, recall")
    note = (
        f"Of the networks on {words.plural(found.evaluated.pictures, 'test picture')}, which chose nothing. In "
        f"brackets {words.level(found.evaluated.confidence)} intervals (Wilson); loss is cross entropy, the "
        "calibration error the expected one (ECE). The worst class was found by its recall: its interval does not "
        "know of that."
    )
    return Table("Answers on test", "Network", heads, rows, note)


def _answers(one: Judged) -> list[Cell]:
    worst = one.worst_class
    return [
        sheets.share(one.accuracy, one.accuracy_low, one.accuracy_high),
        sheets.share(one.top_accuracy, one.top_accuracy_low, one.top_accuracy_high),
        sheets.share(one.macro_f1),
        sheets.loss(one.loss),
        sheets.share(one.calibration_error),
        sheets.share(worst.recall, worst.recall_low, worst.recall_high, worst.name),
    ]


def sizes(found: Findings) -> Table:
    """Shares are of the teacher's."""
    teacher = found.benchmarked.files.teacher
    columns: dict[str, Callable[[str, File], Cell]] = {
        "Parameters": lambda _, file: _part(words.whole(file.parameters), file.parameters, teacher.parameters),
        "Not zero": lambda _, file: _part(words.whole(file.nonzero), file.nonzero, teacher.nonzero),
        "Multiply-accumulates": lambda _, file: _part(words.millions(file.macs), file.macs, teacher.macs),
        "File": lambda _, file: _bytes(file.bytes, teacher.bytes),
        "After gzip": lambda _, file: _bytes(file.gzip_bytes, teacher.gzip_bytes),
        "Weights": lambda _, file: Cell(file.weights),
    }
    if any(getattr(found.exported, name).packed for name in SHIPPED):
        columns["Packed"] = lambda name, _: _packed(found, name)
    columns["Integer kernels"] = lambda _, file: kernels(file)
    rows = [Row(name, "", [show(name, file) for show in columns.values()]) for name, file in _shipped(found).items()]
    if found.distilled.control:
        rows.insert(1, _control(found, teacher, list(columns)))
    note = (
        "Percentages are of the teacher's; multiply-accumulates are for one picture. Kernels are convolutions and "
        "matrix products, counted in the graph that ONNX Runtime runs."
    )
    return Table("Size", "Network", tuple(columns), rows, note)


def _shipped(found: Findings) -> dict[str, File]:
    return {name: getattr(found.benchmarked.files, name) for name in SHIPPED}


def _part(text: str, part: int, whole: int) -> Cell:
    return sheets.number(part, text, words.percent(part / whole))


def _bytes(size: int, teacher: int) -> Cell:
    exact = f"{words.whole(size)}{words.SPACE}B"
    return sheets.number(size, words.megabytes(size), exact, words.percent(size / teacher))


def _packed(found: Findings, name: str) -> Cell:
    file = getattr(found.exported, name)
    return sheets.number(file.packed, words.plural(file.packed, "tensor"), f"{words.percent(file.zeros)} zeros")


def kernels(file: File) -> Cell:
    whole = file.integer_kernels + file.float_kernels
    return sheets.number(file.integer_kernels, f"{file.integer_kernels} of {whole}")


def _control(found: Findings, teacher: File, columns: list[str]) -> Row:
    """It has the student's shape and no file."""
    twin = found.distilled
    known = {
        "Parameters": _part(words.whole(twin.parameters), twin.parameters, teacher.parameters),
        "Multiply-accumulates": _part(words.millions(twin.macs), twin.macs, teacher.macs),
    }
    return Row("control", "", [known.get(name, NOT_SHIPPED) for name in columns])


# ------------------------------------------------------------------------------------------------- student and control


def seeds(found: Findings) -> list[Table]:
    """Val accuracies of each seed and their mean; one student alone needs no table."""
    pairs = [(f"Seed {seed}", one.student, one.control) for seed, one in found.distilled.seeds.items()]
    if len(pairs) < 2 and found.distilled.control is None:
        return []
    rows = [Row(label, "", _seed(student, control)) for label, student, control in pairs]
    if len(pairs) > 1:
        controls = [control for _, _, control in pairs if control is not None]
        means = mean(student for _, student, _ in pairs), mean(controls) if controls else None
        rows.append(Row(MEAN, "", _seed(*means), total=True))
    heads = ("student", "control", "Difference, points") if found.distilled.control else ("student",)
    return [Table("Each seed, on val", "Seed", heads, rows)]


def _seed(student: float, control: float | None) -> list[Cell]:
    if control is None:
        return [sheets.share(student)]
    return [sheets.share(student), sheets.share(control), sheets.points(student - control)]


def twins(found: Findings) -> Table:
    """The first seed's student, and its control."""
    told = {"student": found.distilled.student, "control": found.distilled.control}
    lessons = {name: lesson for name, lesson in told.items() if lesson}
    rows = [Row(name, "", _twin(lesson, getattr(found.evaluated, name))) for name, lesson in lessons.items()]
    heads = ("Val accuracy", "Val loss", "Best epoch", "Test accuracy", "Test loss", "Calibration error")
    title = "The pair that was judged on test" if len(lessons) > 1 else "The student that goes on"
    return Table(title, "Network", heads, rows)


def _twin(lesson: Lesson, judged: Judged) -> list[Cell]:
    return [
        sheets.share(lesson.val_accuracy),
        sheets.loss(lesson.val_loss),
        sheets.epoch(lesson),
        sheets.share(judged.accuracy, judged.accuracy_low, judged.accuracy_high),
        sheets.loss(judged.loss),
        sheets.share(judged.calibration_error),
    ]


def companions(found: Findings) -> list[Table]:
    """Whoever learnt beside the student."""
    rows = [Row(name, "", _companion(one)) for name, one in found.distilled.companions.items()]
    return [Table("Trained along", "Network", ("Val accuracy", "Best epoch", "Its control's"), rows)] if rows else []


def _companion(one: Companion) -> list[Cell]:
    control = sheets.share(one.control.val_accuracy) if one.control else sheets.absent("none")
    return [sheets.share(one.val_accuracy), sheets.epoch(one), control]


# ------------------------------------------------------------------------------------------------------ beside others


def agreement(found: Findings) -> Table:
    """Each network beside the teacher and its parent."""
    rows = [
        Row(f"{name} and {other}", "", _agreement(beside))
        for name, one in judged(found).items()
        for other, beside in one.against.items()
    ]
    heads = ("Same answer", "Other answer", "Only the first is right", "Only the second", "Largest fall of one class")
    note = (
        f"Intervals of the agreement (Wilson) hold at {words.level(found.evaluated.confidence)}. The largest fall is "
        "of a class's recall, in points: among many classes, the largest is partly the unluckiest."
    )
    return Table("Agreement", "Compared", heads, rows, note)


def _agreement(one: Beside) -> list[Cell]:
    fall = sheets.number(-one.worst_class_drop, words.points(-one.worst_class_drop), one.worst_class)
    return [
        sheets.share(one.agreement, one.agreement_low, one.agreement_high),
        sheets.share(one.flipped),
        sheets.count(one.won),
        sheets.count(one.lost),
        fall,
    ]
