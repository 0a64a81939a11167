"""What a file may take on the device that it is for."""

from typing import Annotated

from pydantic import Field, PositiveFloat

from stages.core.params.base import Fraction, Settings

Share = Annotated[float, Field(gt=0, le=1)]


class Budget(Settings):
    """At most so many megabytes (millions of bytes), multiply-accumulates, milliseconds (one thread, one picture) and
    joules a picture; `accuracy` at least, and a `drop` at most against the teacher, both on val: test never chooses.
    None is no limit.
    """

    megabytes: PositiveFloat | None
    macs: PositiveFloat | None
    milliseconds: PositiveFloat | None
    joules: PositiveFloat | None
    accuracy: Share | None
    drop: Fraction | None
