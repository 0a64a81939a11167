"""What the files cost where they were measured."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from stages.core.reporting.findings.base import PORTABLE, Found


class Drift(Found):
    """Of the median, from the first round to the last; `found` where chance is no explanation."""

    share: float
    p: float
    found: bool


class Timing(Found):
    """Milliseconds of a call."""

    median: float
    low: float
    high: float
    p95: float
    p95_low: float
    p95_high: float
    calls: int
    rounds: int
    noisy: bool
    drift: Drift
    pictures_per_second: float
    times_faster: float = Field(alias="times_faster_than_teacher")
    times_faster_low: float
    times_faster_high: float


class Ways(Found):
    one_thread: Timing
    all_threads: Timing
    gpu: Timing | None


class Load(Found):
    """Milliseconds, in processes that had just begun."""

    median: float
    low: float
    high: float
    p95: float
    n: int


class Memory(Found):
    """`over_runtime_bytes` are those beyond what ONNX Runtime takes without a file."""

    peak_bytes: int
    low: int
    high: int
    over_runtime_bytes: int


class Joules(Found):
    per_picture: float
    low: float
    high: float


class File(Ways):
    bytes: int
    gzip_bytes: int
    weights: str
    parameters: int
    nonzero: int
    macs: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    integer_kernels: int
    float_kernels: int
    load: Load
    memory: Memory
    batches: dict[str, Ways]
    joules: Joules | None


class Files(Found):
    teacher: File
    student: File
    pruned: File
    quantized: File
    portable: File | None = Field(None, alias=PORTABLE)


class Energy(Found):
    """Where it was read, or why it could not be."""

    source: str | None
    why: str


class Gpu(Found):
    """Its name, or why there is none."""

    name: str = ""
    why: str = ""


class Machine(Found):
    """And whatever else is told of it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]  # pyright: ignore[reportIncompatibleVariableOverride]
    integer_products: Literal["exact", "saturating"]
    integer_products_because: str


class Benchmarked(Found):
    machine: Machine
    pictures: int
    confidence: float
    energy: Energy
    gpu: Gpu
    files: Files
