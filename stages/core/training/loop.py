"""The one training loop: every stage that learns, learns here.

Best epoch by val, patience by val. A training that was interrupted, at whatever step, goes on and ends with the very
weights of an unbroken one: what a step does follows from the weights before it and its number.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from rich.progress import Progress as Bars
from rich.progress import TaskID
from torch import Tensor, nn

from stages.core import batches, evaluation, params
from stages.core.advice import Views
from stages.core.batches import Batch, Part, Pictures
from stages.core.machine import Machine
from stages.core.objectives.contract import Objective
from stages.core.running import progress
from stages.core.running.errors import Refusal
from stages.core.running.journal import Run
from stages.core.training import checkpoint, exercise, interruption, optimizers, schedules, watching
from stages.core.training.averaging import Average
from stages.core.training.checkpoint import Progress
from stages.core.training.constraints import Constraint, Unconstrained
from stages.core.training.energy import Meter
from stages.core.training.exercise import Exercise
from stages.core.training.interruption import Interruption
from stages.core.training.together import Together
from stages.core.training.watching import NotFinite, Watch

CURVES = ("epoch", "rate", "train_loss", "val_loss", "val_accuracy")
MIB = 2**20
SEEDS = 2**63  # that torch takes
History = list[dict[str, float]]
Summary = dict[str, float | int | bool]


@dataclass(frozen=True)
class Lesson:
    """What to learn from, and how.

    A guide is asked about every batch; views are what a teacher was asked about before, and then they are what is seen.
    Ends as it was in its best epoch, unless what matters came with the last.
    """

    train: Pictures
    val: Pictures
    objective: Objective
    settings: params.Training
    augment: params.Augment
    machine: Machine
    seed: int
    guide: nn.Module | None = None
    views: Views | None = None
    constraint: Callable[[nn.Module], Constraint] = Unconstrained
    ends_with: Literal["best", "last"] = "best"

    def batches(self, epoch: int, skip: int) -> Generator[Batch]:
        part, size = Part(self.machine.team.rank, self.machine.team.size), self.settings.batch_size
        if self.views is not None:
            return self.views.shuffled(self.train, size, self.seed, epoch, skip, part)
        return batches.shuffled(self.train, size, self.augment, self.settings.mix, self.seed, epoch, skip, part)


def fit(network: nn.Module, lesson: Lesson, run: Run, name: str) -> History:
    """Train `network` in place. `name` tells a stage's trainings apart."""
    here = lesson.machine
    with exercise.of(here.place(network), lesson.objective, lesson.guide, here) as exercised:
        return _follow(_Course(exercised, lesson, run.scratch / f"{name}.checkpoint"), run, name)


def _follow(course: "_Course", run: Run, name: str) -> History:
    lesson, meter, seconds = course.lesson, Meter(), list[float]()
    with progress.bars() as bars, interruption.noticed() as asked:
        task = bars.add_task(name, total=lesson.settings.epochs, completed=course.state.epoch, facts="")
        while not course.over():
            began = time.monotonic()
            try:
                row = course.epoch(bars, asked)
            except NotFinite as found:
                course.roll_back(found)
                continue
            seconds.append(time.monotonic() - began)
            pace = {"seconds": seconds[-1], "pictures_per_second": course.pace}
            pace |= {"peak_memory_mib": lesson.machine.peak_memory() / MIB} | meter.joules()
            run.step(name, course.state.epoch, row | pace)
            course.keep()
            _tell(bars, task, name, course)
            if asked:
                asked.obey()
    course.end()
    if seconds:
        run.tell(**{f"{name}_seconds_per_epoch": round(median(seconds), 3), "device": lesson.machine.describe()})
        run.tell(precision=str(lesson.machine.precision).removeprefix("torch."), processes=lesson.machine.team.size)
    return course.state.history


def best_epoch(history: History) -> int:
    """Highest accuracy on val, then lowest loss, then the first."""
    return max(range(len(history)), key=lambda at: (history[at]["val_accuracy"], -history[at]["val_loss"], -at)) + 1


def numbered(name: str, number: int) -> str:
    """Of several trainings that differ in their seed; the first has the plain name."""
    return f"{name}-{number}" if number else name


def untrained(network: nn.Module, val: Pictures) -> Summary:
    """Of a network that is taken as it came."""
    judged = evaluation.on_val(evaluation.logits(network, val), val.labels)
    return judged | {"best_epoch": 0, "epochs": 0, "stopped_early": False}


def summary(history: History, epochs: int) -> Summary:
    best = history[best_epoch(history) - 1]
    return {
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "best_epoch": int(best["epoch"]),
        "epochs": len(history),
        "stopped_early": len(history) < epochs,
    }


class _Course:
    """One training under way."""

    def __init__(self, exercise: Exercise, lesson: Lesson, path: Path) -> None:
        settings, here = lesson.settings, lesson.machine
        self.exercise, self.lesson, self.path = exercise, lesson, path
        self.together = Together(here, exercise)
        self.constraint = lesson.constraint(exercise.network)
        self.optimizer = optimizers.build(settings.optimizer, exercise.network, lesson.objective)
        self.scaler = torch.amp.GradScaler(here.device.type, enabled=here.precision == torch.float16)
        self.average = Average(exercise, settings.average) if settings.average else None
        self.steps = batches.batches_per_epoch(len(lesson.train), settings.batch_size, here.team.size)
        self._refuse_tiny_parts()
        self.state = self._resume()
        self.pace = 0.0  # pictures a second of the last pass over the training pictures

    def over(self) -> bool:
        done = self.state
        waited = len(done.history) - best_epoch(done.history) if done.history else 0
        return done.epoch >= self.lesson.settings.epochs or waited >= self.lesson.settings.patience

    @property
    def patience_left(self) -> int:
        return self.lesson.settings.patience - len(self.state.history) + best_epoch(self.state.history)

    def end(self) -> None:
        if self.lesson.ends_with == "best":
            self.exercise.load_state_dict(self.state.best)
        elif self.average:
            self.exercise.load_state_dict(self.average.state)

    def epoch(self, bars: Bars, asked: Interruption) -> dict[str, float]:
        """One pass over the training pictures, or what is left of it, and one look at val."""
        settings, done = self.lesson.settings, len(self.state.losses)
        watch, losses = Watch(), list[Tensor]()
        began = time.monotonic()
        _learn(self.exercise)
        stream = self.lesson.batches(self.state.epoch, done)
        task = bars.add_task(f"epoch {self.state.epoch + 1}", total=self.steps, completed=done, facts="")
        rate = 0.0
        try:
            with closing(stream):
                for number, batch in enumerate(stream, start=done):
                    rate = self._step(number, batch, watch, losses)
                    bars.update(task, advance=1, facts=f"loss {watch.last:.3f}")
                    if asked and number + 1 < self.steps:
                        watch.finish()
                        self.keep(losses)
                        asked.obey()
                watch.finish()
        finally:
            bars.remove_task(task)
        known = torch.stack(losses).tolist()  # here a device is waited for
        self.pace = len(losses) * settings.batch_size / (time.monotonic() - began)
        self._close_epoch(self.state.losses + known, rate)
        return self.state.history[-1]

    def keep(self, losses: list[Tensor] | None = None) -> None:
        """On the disk; `losses` are those of an epoch that is not over."""
        if losses:
            self.state.losses += torch.stack(losses).tolist()
        self.state.network, self.state.optimizer = self.exercise.state_dict(), self.optimizer.state_dict()
        self.state.scaler = self.scaler.state_dict()
        self.state.average = self.average.state if self.average else {}
        if self.lesson.machine.team.leads:
            checkpoint.save(self.path, self.state)

    def roll_back(self, found: NotFinite) -> None:
        """To what was kept last, with a lower rate; or the end, if that is what the settings want."""
        settings, epoch, step = self.lesson.settings, self.state.epoch + 1, found.step + 1
        where = watching.culprit(self.exercise.network, found.images)
        rate = self.optimizer.param_groups[0]["lr"]
        text = f"the loss is not finite from batch {step} of epoch {epoch} (rate {rate:.2g}): {where}"
        allowed = settings.on_nan.times if isinstance(settings.on_nan, params.Retry) else 0
        if self.state.rollbacks >= allowed:
            tried = f" after {allowed} times on_nan: retry" if allowed else ""
            raise Refusal(
                f"{text}{tried}; lower training.optimizer.rate, lengthen the warm-up of training.schedule or set "
                "training.clip_gradient"
            ) from found
        progress.note(f"{text}; back to epoch {epoch - 1} and on with a lower rate")
        rollbacks = self.state.rollbacks + 1
        self.state = self._restore(self.lesson.machine.same(checkpoint.load(self.path)))
        self.state.rollbacks = rollbacks
        self.keep()

    def _step(self, number: int, batch: Batch, watch: Watch, losses: list[Tensor]) -> float:
        lesson, settings = self.lesson, self.lesson.settings
        torch.manual_seed(((lesson.seed * 1_000_003 + self.state.epoch) * 1_000_003 + number) % SEEDS)
        rate = optimizers.set_rate(self.optimizer, self._share(number))
        self.optimizer.zero_grad(set_to_none=True)
        pieces = max(1, min(settings.accumulate, len(batch.images) // 2))
        whole, told = self._pictures_in(number), list[Tensor]()
        for place, some in enumerate(batch.split(pieces), start=1):
            with self.together.quiet(place < pieces):
                with lesson.machine.autocast():
                    loss = self.together.exercise(some, self.state.epoch)
                loss = loss * (len(some.images) * lesson.machine.team.size / whole)
                told.append(self.together.mean(loss.detach()))
                watch.see(number, told[-1], some.images)
                self.scaler.scale(loss).backward()
        self.constraint.before()
        if settings.clip_gradient is not None:
            self.scaler.unscale_(self.optimizer)
            for weights in filter(None, map(_weights, (self.exercise.network, self.exercise.objective))):
                nn.utils.clip_grad_norm_(weights, settings.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.constraint.after(rate)
        if self.average:
            self.average.follow()
        losses.append(sum(told[1:], told[0]))
        return rate

    def _pictures_in(self, number: int) -> int:
        """A batch, over all processes: the mean over its pictures is what a step minimises, however it is divided."""
        size = self.lesson.settings.batch_size
        return min(size, len(self.lesson.train) - number * size)

    def _share(self, number: int) -> float:
        """Of the full rate, lower after each roll-back."""
        settings, done = self.lesson.settings, self.state
        moment = schedules.Moment(
            done.epoch * self.steps + number, self.steps, settings.epochs, [row["val_loss"] for row in done.history]
        )
        lowered = settings.on_nan.factor**done.rollbacks if isinstance(settings.on_nan, params.Retry) else 1.0
        return schedules.share(settings.schedule, moment) * lowered

    def _close_epoch(self, losses: list[float], rate: float) -> None:
        """With averaged weights it is the average that is judged and kept."""
        val, done = self.lesson.val, self.state
        self.together.agree()
        learnt = _copy(self.exercise) if self.average else {}
        if self.average:
            self.exercise.load_state_dict(self.average.state)
        answers = evaluation.logits(self.exercise.network, val)
        if not torch.isfinite(answers).all():  # the very last step did it
            raise NotFinite(self.steps - 1, next(batches.in_order(val))[0])
        row = {"epoch": done.epoch + 1, "rate": rate, "train_loss": sum(losses) / len(losses)}
        done.epoch, done.losses = done.epoch + 1, []
        done.history.append(row | evaluation.on_val(answers, val.labels))
        if best_epoch(done.history) == done.epoch:
            done.best = _copy(self.exercise)
        if self.average:
            self.exercise.load_state_dict(learnt)

    def _resume(self) -> Progress:
        state = self.lesson.machine.same(checkpoint.load(self.path))
        if state is None:
            self.state = Progress()
            self.keep()
            return self.state
        if state.epoch or state.losses:
            batch = f", batch {len(state.losses)}" if state.losses else ""
            progress.note(f"{self.path.stem}: goes on after epoch {state.epoch}{batch}")
        return self._restore(state)

    def _restore(self, state: Progress | None) -> Progress:
        if state is None:
            raise Refusal(f"{self.path} cannot be read: remove it, and the training begins anew")
        self.exercise.load_state_dict(state.network)
        self.optimizer.load_state_dict(state.optimizer)
        self.scaler.load_state_dict(state.scaler)
        if self.average:
            self.average.restore(state.average, state.epoch * self.steps + len(state.losses))
        return state

    def _refuse_tiny_parts(self) -> None:
        """BatchNorm has no use for one picture."""
        settings, processes = self.lesson.settings, self.lesson.machine.team.size
        if settings.batch_size < 2 * settings.accumulate * processes:
            raise Refusal(
                f"training.batch_size {settings.batch_size} in {settings.accumulate} parts for {processes} processes "
                "leaves less than 2 pictures to each: raise it, or lower training.accumulate"
            )
        if self.steps == 0:
            count = len(self.lesson.train)
            raise Refusal(f"{count} training pictures are too few for {processes} processes: two for each at least")


def _learn(network: nn.Module) -> None:
    """Training mode, except for what is frozen: there even the statistics of BatchNorm stay."""
    network.train()
    for module in network.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()


def _weights(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters())


def _copy(network: nn.Module) -> dict[str, Tensor]:
    """With the versions of its modules, which a plain dict would lose."""
    state = network.state_dict()
    for name, tensor in state.items():
        state[name] = tensor.detach().clone()
    return state


def _tell(bars: Bars, task: TaskID, name: str, course: _Course) -> None:
    row, epochs = course.state.history[-1], course.lesson.settings.epochs
    facts = f"loss {row['train_loss']:.3f}  val {row['val_accuracy']:.2%}"
    more = f"{course.pace:,.0f} pictures/s  patience {course.patience_left}"
    bars.update(task, advance=1, facts=f"{facts}  {more}")
    if not bars.console.is_terminal and course.lesson.machine.team.leads:
        progress.note(f"{name}: epoch {row['epoch']:.0f}/{epochs}  {facts}  {more}")
