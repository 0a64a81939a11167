"""Where a stage's networks learn: its pictures, its teacher, and how the teacher is heard."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from torch import nn

from stages.core import batches, params
from stages.core.advice import Record, Views
from stages.core.batches import Pictures
from stages.core.datasets import storage
from stages.core.datasets.storage import Facts
from stages.core.machine import Machine
from stages.core.networks import artifact
from stages.core.objectives import building
from stages.core.objectives.contract import Objective, Situation
from stages.core.running import files
from stages.core.running.errors import Refusal
from stages.core.training.loop import Lesson

EXAMPLES = 2  # pictures, which is what BatchNorm needs to answer


def _nobody(member: params.Member) -> NoReturn:
    raise AssertionError(f"no {member.name} learns along here")


@dataclass(frozen=True)
class School:
    facts: Facts
    train: Pictures
    val: Pictures
    guide: artifact.Model
    views: Views | None
    augment: params.Augment
    machine: Machine

    @cached_property
    def teacher(self) -> nn.Module:
        return self.machine.place(self.guide.network)

    def heard(self, method: params.Anything) -> Views | None:
        """What the teacher said before, where this method listens to it."""
        return self.views if building.listens(method) else None

    def lesson(
        self,
        student: nn.Module,
        method: params.Anything,
        training: params.Training,
        seed: int,
        guide: nn.Module | None = None,
        begin: Callable[[params.Member], nn.Module] = _nobody,
    ) -> Lesson:
        """What `student` learns, from the school's teacher if no other guide is named."""
        views = self.heard(method) if guide is None else None
        asked = (guide or self.teacher) if building.listens(method) and views is None else None
        example = next(batches.in_order(self.val))[0][:EXAMPLES]
        placed = self.machine.place(student)
        situation = Situation(placed, asked, example, len(self.facts.classes), len(self.train), begin)
        return self._lesson(building.build(method, situation, seed), training, seed, asked, views)

    def alone(self, training: params.Training, seed: int, views: Views | None) -> Lesson:
        """Labels alone, of the very pictures that a student with this seed sees who is taught from these views."""
        objective = building.labels_alone().to(self.machine.device)
        return self._lesson(objective, training, seed, None, views and replace(views, folder=None))

    def _lesson(
        self, objective: Objective, training: params.Training, seed: int, guide: nn.Module | None, views: Views | None
    ) -> Lesson:
        return Lesson(
            self.train, self.val, objective, training, self.augment, self.machine, seed, guide=guide, views=views
        )


def enter(
    train: Path,
    val: Path,
    teacher: Path,
    advice: Path,
    advise: params.Advise,
    augment: params.Augment,
    machine: Machine,
) -> School:
    learning, choosing = storage.load(train), storage.load(val)
    guide, record = artifact.load(teacher), Record.read(advice)
    if guide.card.facts.classes != learning.facts.classes:
        raise Refusal(
            f"{teacher} knows other classes than {train}, or in another order: `dvc repro train_teacher` mends it"
        )
    of = {"teacher": (record.teacher, files.digest(teacher)), "pictures": (record.train, files.digest(train))}
    of["augmentation"] = (str(record.augment), str(augment))
    of["kind of views"] = (str(record.advise), str(advise))
    for what, (said, here) in of.items():
        if said != here:
            raise Refusal(f"{advice} is of another {what} than is given here: `dvc repro advise` asks the teacher anew")
    views = Views(record, advice) if record.advise.views else None
    pictures, held_out = (batches.on_device(split, machine) for split in (learning, choosing))
    return School(learning.facts, pictures, held_out, guide, views, augment, machine)
