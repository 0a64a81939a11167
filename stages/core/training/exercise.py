"""A network, its loss and its teacher as one module: a batch in, a number to minimise out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stages.core.batches import Batch
from stages.core.machine import Machine
from stages.core.objectives.contract import Answer, Objective, Step
from stages.core.objectives.listening import Listening


class Exercise(nn.Module):
    """What learns is in it, the network and what its loss learns; the guide is not, so that nothing moves it."""

    def __init__(self, network: nn.Module, objective: Objective, guide: nn.Module | None, machine: Machine) -> None:
        super().__init__()
        self.network, self.objective = network, objective
        if machine.team.size > 1 and machine.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(self)
        self._called = (
            machine.compiled(self.network),
        )  # in tuples, since a module's modules are what it trains and keeps
        self._guide = (guide.eval().requires_grad_(False),) if guide is not None else ()
        self._listening = Listening(self.network, objective.student_layers, "the student")
        self._overhearing = [Listening(one, objective.teacher_layers, "the teacher") for one in self._guide]

    def forward(self, batch: Batch, epoch: int) -> Tensor:
        """Advice that came with the batch is taken; else the guide is asked about the same pictures."""
        advice = Answer(batch.advice) if batch.advice is not None else None
        for guide, listening in zip(self._guide, self._overhearing, strict=True):
            with torch.no_grad():
                advice = listening.answer(guide, batch.images)
        said = self._listening.answer(self._called[0], batch.images)
        return self.objective(Step(batch.images, batch.labels, batch.numbers, said, advice, epoch))

    def close(self) -> None:
        for listening in (self._listening, *self._overhearing):
            listening.close()


@contextmanager
def of(network: nn.Module, objective: Objective, guide: nn.Module | None, machine: Machine) -> Iterator[Exercise]:
    exercise = Exercise(network, objective, guide, machine)
    try:
        yield exercise
    finally:
        exercise.close()
