"""Who learns, who chooses and who judges.

A picture's place follows from its content and the seed alone: not from its name, its place in a listing or the machine.
Copies of one picture always stay together, so that nothing leaks between splits.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from stages.core.running.errors import Refusal

EXCLUDED = "excluded"
LEARNING, CHOOSING, JUDGING = "train", "val", "test"


@dataclass(frozen=True)
class Member:
    """A picture, as far as its place is concerned: `content` is a digest of its pixels."""

    content: str
    label: int


def assign(
    members: Sequence[Member], classes: Sequence[str], val_share: float, test_share: float, seed: int
) -> list[str]:
    """One of train, val, test for each; copies that bear conflicting labels are excluded."""
    if val_share + test_share >= 1:
        raise Refusal(f"val_share {val_share} and test_share {test_share} leave nothing to train on")
    labels: dict[str, set[int]] = defaultdict(set)
    for member in members:
        labels[member.content].add(member.label)
    places: dict[str, str] = {content: EXCLUDED for content, found in labels.items() if len(found) > 1}
    for label, name in enumerate(classes):
        contents = [member.content for member in members if member.label == label and member.content not in places]
        places |= _deal(contents, name, val_share, test_share, seed)
    return [places[member.content] for member in members]


def calibration(members: Sequence[Member], places: Sequence[str], count: int, seed: int) -> list[bool]:
    """Which training pictures calibrate: each class in its share, `count` in all or as many as there are."""
    learning = [number for number, place in enumerate(places) if place == LEARNING]
    by_class: dict[int, list[int]] = defaultdict(list)
    for number in sorted(learning, key=lambda number: _rank(members[number].content, f"calibration-{seed}")):
        by_class[members[number].label].append(number)
    order = {number: at / len(row) for row in by_class.values() for at, number in enumerate(row, start=1)}
    chosen = set(sorted(order, key=lambda number: (order[number], members[number].label))[:count])
    return [number in chosen for number in range(len(members))]


def _deal(contents: list[str], name: str, val_share: float, test_share: float, seed: int) -> dict[str, str]:
    """Deal one class's pictures out, in an order that only content and seed decide."""
    copies = Counter(contents)
    waiting = sorted(copies, key=lambda content: _rank(content, f"{seed}"))
    if len(waiting) < 3:
        raise Refusal(
            f"class {name!r} has {len(waiting)} different pictures of undisputed label; "
            "train, val and test need at least three"
        )
    place = dict.fromkeys(waiting, LEARNING)
    for split, share, others in ((JUDGING, test_share, 2), (CHOOSING, val_share, 1)):
        quota = max(1, round(share * len(contents)))
        while quota > 0 and len(waiting) > others:
            content = waiting.pop()
            place[content] = split
            quota -= copies[content]
    return place


def _rank(content: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{content}".encode()).hexdigest()
