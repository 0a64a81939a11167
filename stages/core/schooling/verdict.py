"""Did the teacher help? Students against their controls, over the same seeds."""

from typing import Any

from stages.core import evaluation, params, statistics
from stages.core.objectives import building
from stages.core.schooling.classes import Class
from stages.core.schooling.school import School
from stages.core.training import loop
from stages.core.training.loop import History, Summary


def compare(
    first: Class, histories: list[dict[str, History]], seed: int, distill: params.Distill, school: School
) -> dict[str, Any]:
    """Of every class, the first among them, on val, which chose the epochs of both alike."""
    epochs = distill.training.epochs
    lessons = [{name: loop.summary(rows, epochs) for name, rows in one.items()} for one in histories]
    seeds = {
        str(seed + number): {
            name: lesson[name]["val_accuracy"] if name in lesson else None for name in ("student", "control")
        }
        for number, lesson in enumerate(lessons)
    }
    gains = [
        lesson["student"]["val_accuracy"] - lesson["control"]["val_accuracy"]
        for lesson in lessons
        if "control" in lesson
    ]
    interval = statistics.mean_interval(gains, distill.confidence)
    return {
        "student": lessons[0]["student"],
        "control": lessons[0].get("control"),
        "seeds": seeds,
        "verdict": statistics.word(interval) if gains else "no control",
        "gain_on_val": sum(gains) / len(gains) if gains else None,
        "gain_low": interval[0] if interval else None,
        "gain_high": interval[1] if interval else None,
        "confidence": distill.confidence,
        "method": distill.method.name,
        "taught_by": taught_by(distill),
        "advice": advice(distill, school),
        "companions": companions(first, lessons[0], school),
    }


def nothing_learnt(student: Summary, distill: params.Distill) -> dict[str, Any]:
    """The teacher itself goes on."""
    unknown = dict.fromkeys(("control", "gain_on_val", "gain_low", "gain_high"))
    said = {"student": student, "seeds": {}, "verdict": "no control", "confidence": distill.confidence}
    return said | unknown | {"method": "none", "taught_by": "nobody", "advice": "none", "companions": {}}


def taught_by(distill: params.Distill) -> str:
    if isinstance(distill.student, params.AsTeacher):
        return "nobody"
    if isinstance(distill.method, params.Mutual):
        return "a peer"
    return "itself" if distill.guide.name == "itself" or isinstance(distill.method, params.Deeper) else "teacher"


def advice(distill: params.Distill, school: School) -> str:
    if not building.listens(distill.method):
        return "none"
    heard = school.heard(distill.method) if distill.guide.name == "teacher" else None
    return f"{heard.record.advise.views} cached views" if heard else "online"


def companions(first: Class, lessons: dict[str, Summary], school: School) -> dict[str, Any]:
    """A peer has no epochs of its own: it is what it was when the student was best."""
    found: dict[str, Any] = {}
    for name, (_, network) in first.companions.items():
        if name == "peer":
            judged = evaluation.on_val(evaluation.logits(network, school.val), school.val.labels)
            found[name] = lessons["student"] | judged | {"control": lessons.get("peer-control")}
        elif name != "peer-control":
            found[name] = lessons[name]
    return found
