"""One network's answers beside another's, picture by picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.core.judging.counted import share
from stages.core.lineage import PARENTS

TEACHER = "teacher"


def against(
    name: str, choices: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], confidence: float
) -> dict[str, dict[str, Any]]:
    """The teacher and the network it was made from; a teacher has neither."""
    others = dict.fromkeys((TEACHER, PARENTS[name])) if name in PARENTS else {}
    return {other: beside(choices[name], choices[other], labels, classes, confidence) for other in others}


def beside(
    choice: np.ndarray, other: np.ndarray, labels: np.ndarray, classes: Sequence[str], confidence: float
) -> dict[str, Any]:
    """`flipped`: answers that changed; of those, `lost` were right and `won` have become so. A mean may hide a class
    that pays for it (Hooker et al. 2019): `worst_class` is the one whose recall falls most.
    """
    right, was_right = choice == labels, other == labels
    agreeing, count = int((choice == other).sum()), len(labels)
    drops = {int(label): _fall(was_right, right, labels == label) for label in np.unique(labels)}
    worst = max(drops, key=lambda label: drops[label])
    return {
        **share("agreement", agreeing, count, confidence),
        "flipped": (count - agreeing) / count,
        "lost": int((was_right & ~right).sum()),
        "won": int((right & ~was_right).sum()),
        "worst_class": classes[worst],
        "worst_class_drop": drops[worst],
    }


def _fall(was_right: np.ndarray, right: np.ndarray, here: np.ndarray) -> float:
    """Fall of recall, as a difference of counts: equal recalls are equal."""
    return (int(was_right[here].sum()) - int(right[here].sum())) / int(here.sum())
