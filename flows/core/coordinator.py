"""One who knows what has to be done, asks for it, believes only what git shows, and gives points their names.

Whatever it knows can be read from git again: one that was killed is replaced by another that is asked for the same.
"""

import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from flows.core import planning, truth
from flows.core.hands import OVER, Hands, Seen, Stand
from flows.core.ledger import Ledger
from flows.core.planning import Asked, Job
from flows.core.promoting import EXPERIMENTS, Promote
from flows.core.repository import Repository, Unreachable
from flows.core.work import JOBS, Work
from lightvision.experiments import NAMED
from stages.core.running import pipeline
from stages.core.running.errors import Refusal

LOOK = 30.0  # seconds after which git is asked even if nobody says that something happened
SHORT = 16  # digits of a job's key in refs
CORRUPT = "corrupt "  # begins the reason of a job whose input is not what dvc.lock says; its path follows


@dataclass(frozen=True)
class Rules:
    """`attempts` are those lost to machines; `ahead` is how many jobs may wait or run at once."""

    attempts: int = 4
    ahead: int = 200


@dataclass
class Task:
    """One job: what is left of it, who does it, how often it was lost."""

    job: Job
    stages: list[str]
    attempt: int = 0
    lost: int = 0
    ticket: str = ""
    seen: Seen = field(default_factory=lambda: Seen(Stand.WAITING))
    overlooked: bool = False  # it ended, and git was not asked since


class Fate(StrEnum):
    OPEN = "open"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass
class Point:
    """One that was asked for; `rev` is its experiment once it has one."""

    asked: Asked
    fate: Fate = Fate.OPEN
    rev: str = ""
    reason: str = ""


class Coordinator:
    """`reach` is the address of the repository for those who do the work."""

    def __init__(
        self,
        ledger: Ledger,
        hands: Hands,
        promote: Promote,
        *,
        name: str,
        reach: str,
        rules: Rules = Rules(),
        apart: bool = False,
        tell: Callable[[str], None] = print,
        lacking: Callable[[str, Collection[str]], Sequence[str]] = lambda rev, stages: (),
    ) -> None:
        self.name = name
        self.points: dict[str, Point] = {}
        self._ledger, self._hands, self._promoted = ledger, hands, promote
        self._repository = ledger.repository
        self._reach, self._rules, self._apart = reach, rules, apart
        self._tell, self._lacking = tell, lacking
        self._tasks: dict[str, Task] = {}
        self._broken: dict[str, str] = {}  # stage keys that will never be, and why
        self._known: set[str] = set()  # refs of results that were looked at
        self._attempts: dict[str, int] = {}  # the last with a result, by jobs' keys
        self._looked = float("-inf")
        self._stages = truth.stages(ledger.repository, ledger.baseline)
        ledger.learn(ledger.baseline)

    # ------------------------------------------------------------------------------------------------ what to do

    def recall(self) -> None:
        """Whatever was finished before, by whatever sweep, and whatever workers have left since."""
        self._repository.fetch(f"{EXPERIMENTS}/*", f"{JOBS}/*")
        for ref, rev in self._repository.refs(f"{EXPERIMENTS}/*", f"{JOBS}/*").items():
            if ref.startswith(JOBS) or ref.count("/") == NAMED:
                self._ledger.learn(rev)

    def add(self, asked: Iterable[Asked]) -> None:
        self.points |= {one.name: Point(one) for one in asked if one.name not in self.points}
        self._plan()

    def step(self) -> bool:
        """Look once, and do what can be done; False when there is nothing left to wait for."""
        try:
            self._see()
            self._read_results()
            self._judge()
            self._plan()
            self._settle()
            self._ask()
        except Unreachable as trouble:
            self._tell(f"{trouble}; trying again")
        return any(point.fate is Fate.OPEN for point in self.points.values())

    def cancel(self) -> None:
        self._hands.cancel([task.ticket for task in self._tasks.values() if self._is_asked(task)])

    @property
    def tasks(self) -> Collection[Task]:
        return self._tasks.values()

    @property
    def makers(self) -> Mapping[str, Task]:
        """Who is to make what is not there yet, by the keys of stages."""
        return {self._key(task.job, stage): task for task in self._tasks.values() for stage in task.stages}

    @property
    def done(self) -> int:
        """Jobs whose results are there."""
        whole = ([self._key(task.job, stage) for stage in task.job.stages] for task in self._tasks.values())
        return sum(1 for keys in whole if all(key in self for key in keys))

    @property
    def repository(self) -> Repository:
        return self._repository

    # --------------------------------------------------------------------------------------------------- looking

    def _see(self) -> None:
        asked = {task.ticket: task for task in self._tasks.values() if self._is_asked(task)}
        for ticket, seen in self._hands.look(asked.keys()).items():
            task = asked[ticket]
            task.overlooked = task.overlooked or (seen.stand in OVER and task.seen.stand not in OVER)
            task.seen = seen

    def _read_results(self) -> None:
        """Asked when somebody says that a job is over, and now and then, since whoever says so may be cut off."""
        over = any(task.overlooked for task in self._tasks.values())
        if not over and time.monotonic() - self._looked < LOOK:
            return
        ours = {task.job.key[:SHORT]: task for task in self._tasks.values()}
        found = self._repository.refs(f"{JOBS}/*")
        self._attempts = dict(sorted(map(_attempt, found)))
        new = {ref: rev for ref, rev in found.items() if _attempt(ref)[0] in ours and ref not in self._known}
        if new:
            self._repository.fetch(*new)
        for ref in sorted(new, key=_attempt):
            self._accept(ours[_attempt(ref)[0]], new[ref])
            self._known.add(ref)
        self._looked = time.monotonic()
        for task in self._tasks.values():
            task.overlooked = False

    def _accept(self, task: Task, rev: str) -> None:
        """A result counts once its data is where others can have it."""
        if not task.stages:
            return
        try:
            shown = self._ledger.shows(task.job, rev)
        except Refusal as refusal:
            self._tell(f"{refusal}: it does not count")
            return
        fresh = [stage for stage in task.stages if stage in shown]
        if fresh and (absent := self._lacking(rev, fresh)):
            self._tell(f"{task.job.key[:SHORT]}: {absent[0]} is not in DVC's remote, so its result does not count")
            return
        accepted = self._ledger.accept(task.job, rev)
        done = [stage for stage in task.stages if self._key(task.job, stage) in accepted]
        if done:
            self._tell(f"{self._title(task)}: {', '.join(done)} done")
        task.stages = [stage for stage in task.stages if stage not in done]

    # --------------------------------------------------------------------------------------------------- judging

    def _judge(self) -> None:
        for task in [*self._tasks.values()]:  # others are made for what was spoilt
            if not task.ticket or task.seen.stand not in OVER:
                continue
            if task.stages:
                self._again_or_never(task)
            task.ticket = ""

    def _again_or_never(self, task: Task) -> None:
        stand, reason = task.seen.stand, task.seen.reason
        if stand is Stand.FAILED or stand is Stand.CANCELLED:
            self._break(task, reason or stand.value)
            return
        task.lost += 1
        if task.lost >= self._rules.attempts:
            self._break(task, f"lost {task.lost} times, last: {reason or 'nobody knows why'}")
            return
        self._tell(f"{self._title(task)}: lost ({reason or 'without a word'}), asked for again")
        if reason.startswith(CORRUPT):
            self._distrust(task, reason.removeprefix(CORRUPT))

    def _break(self, task: Task, reason: str) -> None:
        for stage in task.stages:
            self._broken.setdefault(self._key(task.job, stage), reason)
        self._tell(f"{self._title(task)}: {reason}")
        task.stages = []

    def _distrust(self, task: Task, path: str) -> None:
        """What lies in the remote is not what was made: whoever still has it, or can make it, is asked for it."""
        keys = self._first(task.job).keys
        makers = [name for name, stage in self._stages.items() if _is_below(path, stage.outs)]
        self._ledger.forget(keys[name] for name in makers if name in keys)

    def _plan(self) -> None:
        """Jobs for what is wanted and nobody is to make: it is new, it was lost, or it rests on what came out anew."""
        covered = _Either(self, self._covered())
        wanted = [point.asked for point in self.points.values() if point.fate is Fate.OPEN]
        lacking = [asked for asked in wanted if not all(key in covered for key in asked.keys.values())]
        for job in planning.jobs(self._stages, lacking, covered, apart=self._apart):
            self._tasks[job.key] = Task(job, list(job.stages))

    # -------------------------------------------------------------------------------------------------- settling

    def _settle(self) -> None:
        """Points whose stages are all done become experiments; those that need what will never be fail."""
        ready: dict[str, Point] = {}
        for name, point in self.points.items():
            if point.fate is not Fate.OPEN:
                continue
            keys = point.asked.keys.values()
            if all(key in self for key in keys):
                ready[name] = point
            elif reason := next((self._broken[key] for key in keys if key in self._broken), ""):
                point.fate, point.reason = Fate.FAILED, reason
                self._tell(f"{name}: failed: {reason}")
        self._promote(ready)

    def _promote(self, ready: Mapping[str, Point]) -> None:
        if not ready:
            return
        for name, outcome in self._promoted({name: point.asked for name, point in ready.items()}).items():
            point = ready[name]
            point.fate = Fate.FAILED if outcome.reason else Fate.FINISHED
            point.rev, point.reason = outcome.rev, outcome.reason
            self._tell(f"{name}: {outcome.reason or 'finished'}")

    # ---------------------------------------------------------------------------------------------------- asking

    def _ask(self) -> None:
        at_work = sum(1 for task in self._tasks.values() if task.stages and self._is_asked(task))
        ready = [task for task in self._tasks.values() if task.stages and not task.ticket and self._is_ready(task)]
        chosen = ready[: self._rules.ahead - at_work]
        starts = [self._ledger.start(task.job, self._first(task.job)) for task in chosen]
        if starts:
            self._repository.create(dict(starts))
        for task, (ref, start) in zip(chosen, starts, strict=True):
            self._submit(task, ref, start)

    def _submit(self, task: Task, ref: str, start: str) -> None:
        """One that was over before we asked is somebody else's: its result counts, or the next number is ours."""
        name = f"{task.job.key[:SHORT]}/{{}}"
        while not task.ticket:
            attempt = max(task.attempt, self._attempts.get(task.job.key[:SHORT], 0)) + 1
            work = Work(
                repository=self._reach,
                baseline=self._ledger.baseline,
                start=start,
                start_ref=ref,
                stages=tuple(task.stages),
                target=f"{JOBS}/{name.format(attempt)}",
                title=self._title(task),
                experiment="" if self._apart else task.job.points[0],
            )
            ticket = self._hands.ask(work, name.format(attempt), task.job.pool)
            task.attempt = attempt
            over = ticket.seen.stand in OVER
            if not over or self._repository.refs(work.target):
                task.ticket, task.seen, task.overlooked = ticket.id, ticket.seen, over

    # ------------------------------------------------------------------------------------------------ the same words

    def __contains__(self, key: str) -> bool:
        """Whether the result of a stage's key is there to build on."""
        return key in self._ledger.done

    def _covered(self) -> set[str]:
        """Keys that need no new job: somebody is to make them, or nobody can."""
        left = {self._key(task.job, stage) for task in self._tasks.values() for stage in task.stages}
        return left | self._broken.keys()

    def _first(self, job: Job) -> Asked:
        """Jobs belong to points that ask for the same, so any of them speaks for all."""
        return self.points[job.points[0]].asked

    def _is_asked(self, task: Task) -> bool:
        return bool(task.ticket) and task.seen.stand not in OVER

    def _is_ready(self, task: Task) -> bool:
        keys = self._first(task.job).keys
        behind = {one.name for name in task.stages for one in pipeline.upstream(name, self._stages)} - set(task.stages)
        return all(keys[name] in self for name in behind)

    def _key(self, job: Job, stage: str) -> str:
        return self._first(job).keys[stage]

    def _title(self, task: Task) -> str:
        first, last = task.stages[0], task.stages[-1]
        points = task.job.points
        whose = points[0] if len(points) == 1 else f"{self.name}, {len(points)} points"
        return f"{whose}: {first if first == last else f'{first} to {last}'}"


@dataclass(frozen=True)
class _Either:
    """Keys that are in the one or in the other."""

    one: Container[str]
    other: Container[str]

    def __contains__(self, key: str) -> bool:
        return key in self.one or key in self.other


def _attempt(ref: str) -> tuple[str, int]:
    """Of a result, the key of its job and which try it was; whatever a stranger wrote there counts as none."""
    *_, key, number = ref.split("/")
    return key, int(number) if number.isdecimal() else 0


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
