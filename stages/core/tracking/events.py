"""What a line of a journal can say, for those who read it; journal.py writes it."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Happening(BaseModel):
    """Facts that a reader does not know are passed over, so that an older forwarder reads a newer journal."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: float

    @property
    def milliseconds(self) -> int:
        return int(self.time * 1000)


class Input(BaseModel):
    """A file or folder that a stage reads."""

    path: str
    digest: str


class Start(Happening):
    """A stage begins, or goes on after it was interrupted."""

    event: Literal["start"]
    stage: str
    key: str
    pid: int
    pipeline: str
    host: str = ""
    folder: str = "."
    commit: str = ""
    experiment: str = ""
    flow_run: str = ""
    settings: dict[str, Any] = {}
    inputs: dict[str, Input] = {}
    order: list[str] = []


class Step(Happening):
    """One point of each of some curves."""

    event: Literal["step"]
    series: str
    step: int
    values: dict[str, float]


class Metrics(Happening):
    """A stage's result."""

    event: Literal["metrics"]
    values: dict[str, float]


class Tags(Happening):
    """Anything else worth finding later."""

    event: Literal["tags"]
    values: dict[str, Any]

    def numbers(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.values.items() if _is_number(value)}

    def words(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.values.items() if not _is_number(value)}


class Artifact(Happening):
    """An output was kept, as it is now, in the journal's folder."""

    event: Literal["artifact"]
    name: str


class Register(Happening):
    """A file of a kept artifact has passed its gates and may be shipped."""

    event: Literal["register"]
    artifact: str
    file: str
    model: str
    gates: dict[str, Any]
    accuracy: float
    judged_on: str
    bytes: int


class End(Happening):
    """A stage has ended."""

    event: Literal["end"]
    status: Literal["finished", "failed", "killed"]
    reason: str = ""


Event = Start | Step | Metrics | Tags | Artifact | Register | End
PARSER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse(line: bytes) -> Event:
    """A line that is no event raises pydantic's ValidationError, which is a ValueError."""
    return PARSER.validate_json(line)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
