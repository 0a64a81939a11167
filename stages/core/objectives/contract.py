"""What a loss is given, and what it may ask for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from stages.core import params


@dataclass(frozen=True)
class Answer:
    """What a network said to a batch: its logits, and what those of its layers said that were asked for, by path."""

    logits: Tensor
    layers: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """`numbers` are the pictures' places in their split, `epoch` counts from 0."""

    images: Tensor
    labels: Tensor  # int64, or probabilities where pictures are blended
    numbers: Tensor
    student: Answer
    teacher: Answer | None
    epoch: int

    @property
    def advice(self) -> Answer:
        if self.teacher is None:
            raise LookupError("this loss listens to a teacher, and there is none")
        return self.teacher


class Objective(nn.Module):
    """A module, since a loss may learn too: adapters, memories, a whole peer. What it learns is kept and resumed."""

    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()

    def forward(self, step: Step) -> Tensor:
        raise NotImplementedError

    def peers(self) -> list[nn.Module]:
        """Whole networks that learn along, to be moved as the student is."""
        return []


@dataclass(frozen=True)
class Situation:
    """What a loss may need to know before the first step; `begin` gives a network as the student began."""

    student: nn.Module
    guide: nn.Module | None
    example: Tensor  # two pictures, normalised
    classes: int
    pictures: int
    begin: Callable[[params.Member], nn.Module]

    @property
    def teacher(self) -> nn.Module:
        if self.guide is None:
            raise LookupError("this loss looks into a teacher, and there is none")
        return self.guide
