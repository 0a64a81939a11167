"""Accuracy by what the source told of pictures, such as the camera: a mean over all may hide one that fails."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from stages.core.judging.counted import share

UNTOLD = "not told"  # an empty cell


def rows(right: np.ndarray, groups: Mapping[str, Sequence[str]], confidence: float) -> Iterator[dict[str, object]]:
    for column, values in groups.items():
        named = np.array([value or UNTOLD for value in values])
        for group in np.unique(named):
            here = right[named == group]
            found = share("accuracy", int(here.sum()), len(here), confidence)
            yield {"column": column, "group": str(group), "pictures": len(here), **found}
