"""How a sweep stands: its points, those first that people look for, and how long the rest takes."""

import json
import math
import textwrap
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from flows.core.coordinator import Coordinator, Fate, Point, Task
from flows.core.hands import Stand
from stages.core import words

FILES = ("quantized", "pruned", "student", "teacher")  # the last that a point ships speaks for it
ACCURACIES = (  # of val, the last stage first; evaluate and benchmark know those of test, which choose nothing
    ("quantize", "val_accuracy"),
    ("prune", "val_accuracy"),
    ("distill", "student", "val_accuracy"),
    ("train_teacher", "val_accuracy"),
)
PLACES = ("seed=", "prepare.fold=")  # what `seed` and `fold` say already
LATELY = 50  # jobs, by which the pace is told
SHORT = 160  # letters of what is read in passing


class Group(StrEnum):
    """In the table's order."""

    FINISHED = "finished"
    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True)
class Worth:
    """What a finished point came to; nothing of it is of test."""

    accuracy: float | None = None
    bytes: float | None = None
    milliseconds: str = ""


@dataclass(frozen=True)
class Standing:
    point: str
    about: str
    group: Group
    state: str
    worth: Worth


def standings(coordinator: Coordinator, worth_of: Callable[[str, Point], Worth]) -> list[Standing]:
    """The most accurate first; of two as accurate, the smaller."""
    makers, shared = coordinator.makers, _shared(coordinator.points.values())
    found: list[Standing] = []
    for name, point in coordinator.points.items():
        group, state = _state(point, makers)
        worth = worth_of(name, point) if group is Group.FINISHED else Worth()
        found.append(Standing(name, _about(point, shared), group, state, worth))
    return sorted(found, key=_place)


def _place(one: Standing) -> tuple[int, float, float]:
    accuracy, size = one.worth.accuracy, one.worth.bytes
    return (
        list(Group).index(one.group),
        math.inf if accuracy is None else -accuracy,
        math.inf if size is None else size,
    )


# ------------------------------------------------------------------------------------------------ where it is now


def _state(point: Point, makers: Mapping[str, Task]) -> tuple[Group, str]:
    if point.fate is Fate.FINISHED:
        return Group.FINISHED, "finished"
    if point.fate is Fate.FAILED:
        return Group.FAILED, textwrap.shorten(f"failed: {point.reason}", SHORT, placeholder=" ...")
    tasks = {id(makers[key]): makers[key] for key in point.asked.keys.values() if key in makers}.values()
    asked = [task for task in tasks if task.ticket]
    running = [task for task in asked if task.seen.stand is Stand.RUNNING]
    if running:
        return Group.RUNNING, f"running {', '.join(map(_at_work, running))}"
    if asked:
        return Group.WAITING, f"waiting for a worker{_again(asked[0])}"
    return Group.WAITING, "waiting"


def _at_work(task: Task) -> str:
    first, last = task.stages[0], task.stages[-1]
    place = f" on {task.seen.host}" if task.seen.host else ""
    return f"{first if first == last else f'{first} to {last}'}{place}{_again(task)}"


def _again(task: Task) -> str:
    return f" (attempt {task.attempt})" if task.attempt > 1 else ""


# --------------------------------------------------------------------------------------------- what makes it another


def _shared(points: Collection[Point]) -> set[str]:
    every = [set(point.asked.sets) for point in points]
    return set.intersection(*every) if len(every) > 1 else set()


def _about(point: Point, shared: Collection[str]) -> str:
    asked = point.asked
    own = [one for one in asked.sets if one not in shared and not one.startswith(PLACES)]
    fold = "" if asked.fold is None else f"fold {asked.fold}"
    return textwrap.shorten(", ".join(filter(None, (asked.row, f"seed {asked.seed}", fold, *own))), SHORT)


# --------------------------------------------------------------------------------------------------- what it came to


def worth(read: Callable[[str], bytes | None], stages: Iterable[str]) -> Worth:
    """Of what the point's own stages made: for all others its commit has what the baseline came to."""
    metrics = {stage: _content(read(f"metrics/{stage}.json")) for stage in stages}
    exported, measured = metrics.get("export"), _at(metrics, "benchmark", "files")
    name = next((name for name in FILES if _at(exported, name) or _at(measured, name)), "")
    accuracies = (_number(metrics, "export", name, "accuracy"), *(_number(metrics, *path) for path in ACCURACIES))
    sizes = (_number(exported, name, "bytes"), _number(measured, name, "bytes"))
    return Worth(
        next((one for one in accuracies if one is not None), None),
        next((one for one in sizes if one is not None), None),
        _timing(_at(measured, name, "one_thread")),
    )


def _timing(timing: Any) -> str:
    median, low, high = (_number(timing, name) for name in ("median", "low", "high"))
    if median is None:
        return ""
    between = "" if low is None or high is None else f" [{words.milliseconds(low)}, {words.milliseconds(high)}]"
    return f"{words.milliseconds(median)}{between}{' noisy' if _at(timing, 'noisy') is True else ''}"


def _content(text: bytes | None) -> Any:
    try:
        return json.loads(text or b"null")
    except ValueError:
        return None


def _at(content: Any, *path: str) -> Any:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _number(content: Any, *path: str) -> float | None:
    found = _at(content, *path)
    return found if isinstance(found, int | float) and math.isfinite(found) else None


# ------------------------------------------------------------------------------------------------------ how long


class Pace:
    """By the jobs that were done lately, since workers come and go; what was there at first is nobody's pace."""

    def __init__(self) -> None:
        self._done = 0
        self._ends: deque[float] = deque(maxlen=LATELY + 1)

    def see(self, done: int, now: float) -> None:
        self._ends.extend([now] * (done - self._done if self._ends else 1))
        self._done = done

    def hourly(self, now: float) -> float:
        seconds = now - self._ends[0]
        return 3600 * (len(self._ends) - 1) / seconds if seconds > 0 else 0.0


@dataclass(frozen=True)
class Summary:
    """`pace` is of jobs an hour, `left` the seconds that the rest takes at it; zero while nobody knows."""

    finished: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0
    pace: float = 0.0
    left: float = 0.0

    @property
    def all(self) -> int:
        return self.finished + self.running + self.waiting + self.failed

    @property
    def at_rest(self) -> "Summary":
        """When nobody is at work on it any more; what is not finished waits for somebody to ask again."""
        return replace(self, running=0, waiting=self.running + self.waiting, pace=0.0, left=0.0)

    @property
    def counts(self) -> str:
        some = [f"{count:,} {group}" for group in Group if (count := getattr(self, group.value))]
        return f"{', '.join(some) or 'nothing yet'} of {words.plural(self.all, 'point')}"

    @property
    def told(self) -> str:
        pace = f"{self.pace:.2g}" if self.pace < 10 else words.whole(self.pace)
        left = f", about {duration(self.left)} left" if self.left else ""
        return f"{self.counts}; {pace} jobs an hour{left}" if self.pace else self.counts


def summary(coordinator: Coordinator, found: Iterable[Standing], pace: Pace, now: float) -> Summary:
    groups = Counter(one.group for one in found)
    open_keys = {
        key for point in coordinator.points.values() if point.fate is Fate.OPEN for key in point.asked.keys.values()
    }
    left = len({id(task) for key, task in coordinator.makers.items() if key in open_keys})
    hourly = pace.hourly(now)
    counts = {group.value: groups[group] for group in Group}
    return Summary(**counts, pace=hourly, left=3600 * left / hourly if hourly else 0.0)


def duration(seconds: float) -> str:
    """Two digits of what is only guessed."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 10 else f"{round(seconds / 3600):,} h"
