"""What is asked of a network that gets fewer bits, and what comes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stages.core import evaluation, params
from stages.core.networks.artifact import Card, Model
from stages.core.running.journal import Run
from stages.core.schooling.school import School
from stages.core.training.loop import History


@dataclass(frozen=True)
class Asked:
    """`images` are the calibration pictures, normalised; `before` is the accuracy on val in floating point."""

    quantize: params.Quantize
    model: Model
    images: Sequence[Tensor]
    school: School
    seed: int
    run: Run
    before: float

    def judge(self, network: nn.Module) -> dict[str, float]:
        val = self.school.val
        return evaluation.on_val(evaluation.logits(self.school.machine.place(network), val), val.labels)


@dataclass(frozen=True)
class Made:
    """`facts` are for the metrics."""

    card: Card
    save: Callable[[Path, Card], None]
    facts: Mapping[str, Any] = field(default_factory=dict)
    histories: Mapping[str, History] = field(default_factory=dict)
