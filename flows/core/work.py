"""What a coordinator asks of a worker, as it travels through Prefect."""

from pydantic import BaseModel, ConfigDict

JOBS = "refs/lightvision/jobs"
STARTS = "refs/lightvision/starts"


class Work(BaseModel):
    """Some stages, one after the other, from a commit that says everything they need; git carries the result.

    `repository` is the address by which workers reach git; `start` is a commit with params.yaml and dvc.lock ready,
    made on top of `baseline` and kept alive by `start_ref`; the result becomes `target`, which nobody may overwrite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    baseline: str
    start: str
    start_ref: str
    stages: tuple[str, ...]
    target: str
    title: str
    experiment: str


class Wish(BaseModel):
    """A point before its commit was asked: `sets` are as in `dvc exp run -S`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: str = ""
    seed: int
    fold: int | None = None
    sets: tuple[str, ...] = ()
