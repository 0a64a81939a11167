"""The data, and who learnt from whom."""

from typing import Literal, Self

from pydantic import model_validator

from stages.core.reporting.findings.base import Found


class Prepared(Found):
    classes: int
    pictures: dict[str, int]
    calibration: int
    copies: int
    rarest_class: int


class Lesson(Found):
    val_accuracy: float
    val_loss: float
    best_epoch: int
    epochs: int
    stopped_early: bool


class Trained(Lesson):
    parameters: int
    macs: int


class Twins(Found):
    """Val accuracy of a student and its control that began with the same seed."""

    student: float
    control: float | None


class Companion(Lesson):
    """A network that was trained along: a peer, or an earlier generation, which has no control of its own."""

    control: Lesson | None = None


class Distilled(Found):
    """The lessons are those of the first seed, whose student goes on."""

    student: Lesson
    control: Lesson | None
    seeds: dict[str, Twins]
    verdict: Literal["helps", "hurts", "not shown", "no control"]
    gain_on_val: float | None
    gain_low: float | None
    gain_high: float | None
    confidence: float
    method: str
    taught_by: Literal["teacher", "itself", "a peer", "nobody"]
    advice: str
    parameters: int
    macs: int
    companions: dict[str, Companion]

    @model_validator(mode="after")
    def _controls_agree(self) -> Self:
        """Nothing is claimed without a control, and no control is lost between seeds."""
        controls = {twins.control is not None for twins in self.seeds.values()}
        told = {self.control is not None, self.verdict != "no control", self.gain_on_val is not None}
        if controls | told not in ({True}, {False}):
            raise ValueError("control, seeds, verdict and gain_on_val disagree whether there is a control")
        if bool(self.seeds) != (self.taught_by != "nobody"):
            raise ValueError("seeds and taught_by disagree whether there was a lesson")
        return self


class Against(Found):
    """A network's val accuracy less its control's, over the seeds."""

    gain: float
    low: float | None
    high: float | None
    verdict: Literal["helps", "hurts", "not shown"]
