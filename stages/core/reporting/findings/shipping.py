"""What was proved of the files."""

from pydantic import Field

from stages.core.reporting.findings.base import PORTABLE, Found


class Shipped(Found):
    """`tensor_bytes` are those of the numbers unpacked; `ideal_bytes` those of a file whose packed weights take
    just their bits."""

    bytes: int
    ideal_bytes: int
    tensor_bytes: int
    zeros: float
    packed: int
    agreement: float
    accuracy: float
    accuracy_drop: float
    drop_low: float
    drop_high: float
    largest_difference: float


class Steps(Found):
    """How many of which operator."""

    products: dict[str, int]
    additions: dict[str, int]
    pooling: dict[str, int]
    others: dict[str, int]


class Operators(Found):
    integer: Steps
    floating: Steps
    conversions: dict[str, int]
    ends: dict[str, int]
    first_is_integer: bool
    last_is_integer: bool


class FewerBits(Shipped):
    """`saturates` counts weights whose products some processors cannot add; only a file of integers has levels and
    operators."""

    saturates: int
    levels: int | None = None
    operators: Operators | None = None


class Exported(Found):
    teacher: Shipped
    student: Shipped
    pruned: Shipped
    quantized: FewerBits
    portable: FewerBits | None = Field(None, alias=PORTABLE)
