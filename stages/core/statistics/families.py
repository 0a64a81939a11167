"""Many tests at once: one of twenty finds what is not there."""

from collections.abc import Sequence
from typing import Any


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """p values, adjusted so that all of a family together err as seldom as one (Holm 1979); where no test was possible,
    none is counted."""
    from statsmodels.stats.multitest import multipletests  # takes seconds

    tested = [p for p in chances if p is not None]
    found: Any = multipletests(tested, method="holm")[1] if tested else []
    adjusted = iter(found)
    return [None if p is None else float(next(adjusted)) for p in chances]
