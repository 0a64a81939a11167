"""What other runtimes' files were found to be."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from stages.core.reporting.findings.base import Found


class Made(Found):
    """One file, beside the network that it was made `of`; milliseconds in its own runtime, one thread, one picture."""

    made: Literal[True]
    file: str
    of: str
    bytes: int
    kind: str
    runtime: str
    transposes: int | None
    delegated: float | None
    accuracy: float
    accuracy_drop: float
    drop_low: float
    drop_high: float
    agreement: float
    largest_difference: float
    milliseconds: float
    milliseconds_low: float
    milliseconds_high: float


class Skipped(Found):
    made: Literal[False]
    why: str


class Converted(Found):
    model_config = ConfigDict(extra="allow")
    pictures: int
    confidence: float
    targets: dict[str, Annotated[Made | Skipped, Field(discriminator="made")]]
