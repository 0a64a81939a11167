"""What an interval or a test shows, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.core.statistics.intervals import ALIKE, Interval, mean_interval

NOT_SHOWN = "no difference is shown"


def word(interval: Interval | None) -> str:
    """What the interval of a gain shows; one seed shows nothing, nor do seeds that all gain as many pictures.

    Accuracy counts pictures: two seeds that both gain one would make an interval of no width.
    """
    if interval is None or interval[0] <= 0 <= interval[1] or interval[1] - interval[0] < ALIKE:
        return "not shown"
    return "helps" if interval[0] > 0 else "hurts"


def against(
    name: str, controls: Sequence[str], accuracies: Sequence[Mapping[str, float | None]], confidence: float
) -> dict[str, Any]:
    """What a network gained over each of its controls, by seed."""
    found: dict[str, Any] = {}
    for control in controls:
        pairs = [(one[name], one.get(control)) for one in accuracies]
        gains = [own - other for own, other in pairs if own is not None and other is not None]
        if gains:
            interval = mean_interval(gains, confidence)
            low, high = interval or (None, None)
            found[control] = {"gain": sum(gains) / len(gains), "low": low, "high": high, "verdict": word(interval)}
    return found


def verdict(
    difference: float,
    p: float,
    p_equivalent: float | None,
    confidence: float,
    within: str,
    sides: tuple[str, str] = ("better", "worse"),
) -> str:
    """A difference and equivalence are two questions: a small difference can be shown, and a large one not."""
    equivalent = p_equivalent is not None and p_equivalent < 1 - confidence
    if p < 1 - confidence:
        side = sides[0] if difference > 0 else sides[1]
        return f"{side}, yet equivalent within {within}" if equivalent else side
    return f"equivalent within {within}" if equivalent else NOT_SHOWN
