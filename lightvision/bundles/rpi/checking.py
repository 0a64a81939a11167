"""Whether this device answers as the machine did where the bundle was made."""

# pyright: reportMissingImports=false

from pathlib import Path
from typing import Any

import numpy as np
from lightvision_runner.classifying import Classifier

CHECKS = "checks.npz"
PICTURES = "pictures"  # the first of the checks as files, which must be read as they were written
TOLERANCE = 0.05  # of a probability: kernels of another processor round otherwise


def check(model: Classifier, folder: Path) -> dict[str, Any]:
    """The pictures come from data/val; labels say nothing here, since only sameness is asked."""
    with np.load(folder / CHECKS) as held:
        images, expected = held["images"], held["probabilities"]
    found = model.probabilities(images)
    agreement = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    difference = float(np.abs(found - expected).max())
    files = sorted((folder / PICTURES).glob("*.png"))
    decoded = len(files) > 0 and all(map(np.array_equal, map(model.pixels, files), images))
    return {
        "pictures": len(images),
        "agreement": agreement,
        "largest_difference": difference,
        "files_read_alike": decoded,
        "passed": bool(agreement == 1 and difference <= TOLERANCE and decoded),
    }
