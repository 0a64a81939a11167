"""Who learns, who chooses and who judges.

A split that the source brings is kept, and what it lacks is dealt out of the rest. A picture's place follows from its
content, its class and the seed alone: not from its name, its place in a listing or the machine. Copies of one picture
always stay together, so that nothing leaks between splits. Within each class pictures are ranked by a hash, and splits
are ranges of that ranking: pictures that are added later move only the few that lie at a range's end.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.core.datasets.listing import TEST, TRAIN, VAL
from stages.core.running.errors import Refusal

EXCLUDED = "excluded"
SMALL = "its class has too few pictures"
SEATS = ("", TRAIN, VAL, TEST)  # where copies straddle given splits, the last of these keeps its pictures


@dataclass(frozen=True)
class Member:
    """A picture, as far as its place is concerned: `content` is a digest of its pixels."""

    content: str
    label: int
    given: str = ""
    group: str = ""  # of near copies that must share a split; empty: its content alone

    @property
    def key(self) -> str:
        return self.group or self.content


@dataclass(frozen=True)
class Plan:
    val_share: float
    test_share: float
    folds: int
    fold: int
    seed: int


@dataclass(frozen=True)
class Place:
    split: str
    reason: str = ""  # for which a picture is excluded


def assign(members: Sequence[Member], classes: Sequence[str], plan: Plan, small_classes: str) -> list[Place]:
    """One of train, val, test for each, or excluded: conflicting labels, copies of judged pictures, small classes."""
    lacking = tuple(split for split in (TEST, VAL) if all(member.given != split for member in members))
    if plan.folds > 1 and not lacking:
        raise Refusal("prepare.folds: the source brings a val and a test split of its own; set folds: 1")
    excluded = _conflicts(members)
    excluded |= _leaks(members, excluded)
    rows = _by_class(members, excluded, len(classes))
    needed = _needed(plan.folds, len(lacking))
    small = {label for label, row in enumerate(rows) if len(row) < needed}
    if small and small_classes == "stop":
        label = min(small, key=lambda label: len(rows[label]))
        others = f" (and {len(small) - 1} other classes)" if len(small) > 1 else ""
        raise Refusal(
            f"class {classes[label]!r} has {len(rows[label])} different pictures of undisputed label to deal out"
            f"{others}; its splits need at least {needed}: add some, or set prepare.policy.small_classes: exclude"
        )
    places: dict[str, str] = {}
    for label, row in enumerate(rows):
        if label not in small:
            places |= _deal(row, plan, lacking)
    return [_place(number, member, excluded, small, places) for number, member in enumerate(members)]


def calibration(members: Sequence[Member], places: Sequence[Place], count: int, seed: int) -> list[bool]:
    """Which training pictures calibrate: each class in its share, `count` in all or as many as there are."""
    learning = [number for number, place in enumerate(places) if place.split == TRAIN]
    by_class: dict[int, list[int]] = defaultdict(list)
    for number in sorted(learning, key=lambda number: _rank(members[number].content, f"calibration-{seed}")):
        by_class[members[number].label].append(number)
    order = {number: at / len(row) for row in by_class.values() for at, number in enumerate(row, start=1)}
    chosen = set(sorted(order, key=lambda number: (order[number], members[number].label))[:count])
    return [number in chosen for number in range(len(members))]


def _place(
    number: int, member: Member, excluded: Mapping[int, str], small: set[int], places: Mapping[str, str]
) -> Place:
    if number in excluded:
        return Place(EXCLUDED, excluded[number])
    if member.label in small:
        return Place(EXCLUDED, SMALL)
    return Place(member.given if member.given in (VAL, TEST) else places[member.key])


def _conflicts(members: Sequence[Member]) -> dict[int, str]:
    labels: dict[str, set[int]] = defaultdict(set)
    for member in members:
        labels[member.content].add(member.label)
    return {n: "its copies bear several labels" for n, member in enumerate(members) if len(labels[member.content]) > 1}


def _leaks(members: Sequence[Member], excluded: Mapping[int, str]) -> dict[int, str]:
    """Pictures whose copies the source itself put among those that choose or judge."""
    seats: dict[str, int] = defaultdict(int)
    for number, member in enumerate(members):
        if number not in excluded:
            seats[member.key] = max(seats[member.key], SEATS.index(member.given))
    return {
        number: f"a copy of it is in the source's {SEATS[seats[member.key]]} split"
        for number, member in enumerate(members)
        if number not in excluded
        and SEATS[seats[member.key]] in (VAL, TEST)
        and member.given != SEATS[seats[member.key]]
    }


def _by_class(members: Sequence[Member], excluded: Mapping[int, str], classes: int) -> list[Counter[str]]:
    """For each class the pictures to deal out, as keys with the number of copies of each."""
    rows: list[Counter[str]] = [Counter() for _ in range(classes)]
    owners: dict[str, int] = {}
    free = [member for n, member in enumerate(members) if n not in excluded and member.given not in (VAL, TEST)]
    for member in sorted(free, key=lambda member: (member.content, member.label)):
        label = owners.setdefault(member.key, member.label)  # near copies of several classes are dealt with the first
        rows[label][member.key] += 1
    return rows


def _deal(row: Counter[str], plan: Plan, lacking: Sequence[str]) -> dict[str, str]:
    """Deal one class's pictures out, in an order that only content and seed decide."""
    waiting = sorted(row, key=lambda key: _rank(key, f"{plan.seed}"))
    places = dict.fromkeys(waiting, TRAIN)
    shares = {TEST: plan.test_share, VAL: plan.val_share}
    for at, split in enumerate(lacking):
        if at == 0 and plan.folds > 1:
            chosen = _fold(waiting, plan)
        else:
            quota = max(1, round(shares[split] * row.total()))
            chosen = _quota(waiting, row, quota, keep=len(lacking) - at)
        places |= dict.fromkeys(chosen, split)
        waiting = [key for key in waiting if key not in chosen]
    return places


def _quota(waiting: Sequence[str], row: Counter[str], quota: int, keep: int) -> set[str]:
    """The last of those who wait, `quota` pictures with their copies; at least `keep` are left for others."""
    chosen: set[str] = set()
    for key in reversed(waiting):
        if quota > 0 and len(waiting) - len(chosen) > keep and row[key] <= quota:
            chosen.add(key)
            quota -= row[key]
    return chosen or {min(reversed(waiting), key=lambda key: row[key])}


def _fold(waiting: Sequence[str], plan: Plan) -> set[str]:
    """Fold number `fold` of `folds` ranges, equal give or take one, where copies count once."""
    return {key for at, key in enumerate(waiting) if at * plan.folds // len(waiting) == plan.fold}


def _needed(folds: int, lacking: int) -> int:
    """The fewest different pictures of a class that leave none of its splits empty, whichever fold is judged."""
    count = max(folds, 1 + lacking)
    while folds > 1 and count - math.ceil(count / folds) < lacking:
        count += 1
    return count


def _rank(content: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{content}".encode()).hexdigest()
