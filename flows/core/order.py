"""What a job asks of DVC's process, and what that one leaves behind."""

from pathlib import Path

from pydantic import BaseModel

FAILED = "failed: stage "  # said of a stage right after its own last word


class Order(BaseModel):
    """`cache` is the host's, and `state` a folder that remembers hashes of what is in it.

    `project` is a checkout on this machine, whose own settings and cache are used instead.
    """

    stages: tuple[str, ...]
    cache: Path
    state: Path
    project: Path | None
    patience: float


class Outcome(BaseModel):
    """Finished stages with their files that git keeps; a failed one with its exit status; or what was in the way."""

    finished: list[str] = []
    files: list[str] = []
    failed: str = ""
    status: int | None = None
    trouble: str = ""
