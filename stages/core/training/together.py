"""Several processes, one training: each sees its part of every batch, and all take the same step."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from stages.core.machine import Machine


class Together:
    """`exercise` is what is called in a training step; its weights are those of the exercise it was made from."""

    def __init__(self, machine: Machine, exercise: nn.Module) -> None:
        self._machine, self._plain = machine, exercise
        self.exercise = DistributedDataParallel(exercise) if machine.team.size > 1 else exercise

    def quiet(self, more_to_come: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged once for each step."""
        if more_to_come and isinstance(self.exercise, DistributedDataParallel):
            return self.exercise.no_sync()
        return nullcontext()

    def agree(self) -> None:
        """On what is no weight: without this, statistics of BatchNorm on CPUs are each process's own."""
        if self._machine.team.size > 1:
            for buffer in self._plain.buffers():
                distributed.broadcast(buffer, src=0)

    def mean(self, loss: Tensor) -> Tensor:
        """Over the processes, so that all of them notice together when it is no number."""
        if self._machine.team.size == 1:
            return loss
        total = loss.clone()
        distributed.all_reduce(total)
        return total / self._machine.team.size
