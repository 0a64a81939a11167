"""Which pictures a person is shown."""

from collections import Counter, defaultdict

import numpy as np


def examples(chances: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """One of each confusion, the commonest first, then a second of each; then those that are right and least sure."""
    choice, sure = chances.argmax(axis=1), chances.max(axis=1)
    order = np.argsort(sure, kind="stable").tolist()
    confused: dict[tuple[int, int], list[int]] = defaultdict(list)
    for picture in order:
        if choice[picture] != labels[picture]:
            confused[int(labels[picture]), int(choice[picture])].append(picture)
    common = Counter({pair: len(pictures) for pair, pictures in confused.items()}).most_common()
    rounds = range(max((len(pictures) for pictures in confused.values()), default=0))
    wrong = [confused[pair][at] for at in rounds for pair, many in common if at < many]
    right = [picture for picture in order if choice[picture] == labels[picture]]
    return (wrong + right)[:count]


def disputed(first: np.ndarray, second: np.ndarray, count: int) -> tuple[list[int], str]:
    """Pictures that two networks answer differently, both of them surely; then those they are least sure of together.
    And in words, where that is not what was asked for."""
    sure = first.max(axis=1) + second.max(axis=1)
    differ = first.argmax(axis=1) != second.argmax(axis=1)
    order = np.argsort(sure, kind="stable")
    disagreed, agreed = order[differ[order]][::-1][:count].tolist(), order[~differ[order]].tolist()
    others = agreed[: count - len(disagreed)]
    if not others:
        return disagreed, ""
    if not disagreed:
        return others, "they never disagree: these are the pictures that they are least sure of"
    return disagreed + others, (
        f"they disagree on {len(disagreed)} of the {len(disagreed) + len(others)} pictures; "
        "the others are those that they are least sure of"
    )
