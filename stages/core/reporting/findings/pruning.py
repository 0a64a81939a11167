"""What was cut, and what the same epochs do otherwise."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import BeforeValidator, Field, model_validator

from stages.core.reporting.findings.base import Found, table
from stages.core.reporting.findings.learning import Against, Lesson


class Width(Found):
    before: int
    after: int


class Heads(Found):
    """Of one attention; `dimension` is what each head sees."""

    heads: Width
    dimension: Width


class Size(Found):
    """Bytes are those of the float32 file."""

    parameters: int
    macs: int
    bytes: int


class Kept(Size):
    nonzero: int


class Cut(Found):
    removed: float
    zeros: float
    val_accuracy: float


Control = Literal["uncut", "from-scratch"]
Learner = Literal["pruned", "uncut", "from-scratch"]


def _learnt(found: Any) -> Any:
    """Who did not learn has null in the place of an accuracy."""
    return {name: value for name, value in found.items() if value is not None} if isinstance(found, dict) else found


Accuracies = Annotated[dict[Learner, float], BeforeValidator(_learnt)]


class Pruned(Lesson):
    """Lessons and sizes are those of the first seed, whose network goes on."""

    val_accuracy_before_recovery: float
    of: str
    before: Size
    after: Kept
    parameters_removed: float
    macs_removed: float
    bytes_removed: float
    zeros: float
    blocks: dict[str, int]
    steps: dict[str, Cut]
    controls: dict[Control, Lesson] | None
    seeds: dict[str, Accuracies] = Field(min_length=1)
    against: dict[Control, Against]
    confidence: float
    channels: dict[str, Width]
    heads: dict[str, Heads]
    zeros_by_layer: dict[str, float]

    @model_validator(mode="after")
    def _controls_agree(self) -> Self:
        """A control that learnt did so for every seed, and is judged."""
        learnt = set(self.controls or ())
        if self.against.keys() != learnt or any(one.keys() != learnt | {"pruned"} for one in self.seeds.values()):
            raise ValueError("controls, seeds and against disagree who learnt beside the pruned network")
        return self


def read_sensitivity(path: Path) -> pd.DataFrame:
    return table(path, ("layer",), ("share", "val_accuracy", "val_loss"))
