"""Who learns, who chooses, who judges: disjoint, in equal shares of each class, blind to order, stable."""

import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as some

from stages.core.datasets import splits
from stages.core.datasets.splits import EXCLUDED, Member, Place, Plan
from stages.core.running.errors import Refusal

NAMES = tuple("abc")
PLAN = Plan(val_share=0.2, test_share=0.2, folds=1, fold=0, seed=0)


def members_of(counts: dict[int, int], copies: int = 0, given: str = "") -> list[Member]:
    found = [Member(f"{given}{label}-{n}", label, given) for label, count in counts.items() for n in range(count)]
    return found + [Member(f"0-{number}", 0) for number in range(copies)]


def split_of(members: list[Member], plan: Plan = PLAN, small_classes: str = "stop") -> list[str]:
    return [place.split for place in splits.assign(members, NAMES, plan, small_classes)]


@given(
    counts=some.fixed_dictionaries({label: some.integers(6, 60) for label in range(3)}),
    copies=some.integers(0, 5),
    shares=some.sampled_from([(0.2, 0.2), (0.1, 0.3), (0.15, 0.15)]),
    seed=some.integers(0, 99),
)
@limits(max_examples=40, deadline=None)
def test_splits_are_disjoint_stratified_and_blind_to_order(
    counts: dict[int, int], copies: int, shares: tuple[float, float], seed: int
) -> None:
    members = members_of(counts, copies)
    plan = Plan(*shares, folds=1, fold=0, seed=seed)
    places = split_of(members, plan)
    assert_copies_stay_together(members, places)
    for label, count in (counts | {0: counts[0] + copies}).items():
        found = Counter(place for member, place in zip(members, places, strict=True) if member.label == label)
        for name, share in zip(("val", "test"), shares, strict=True):
            assert abs(found[name] - share * count) <= (2 if copies and label == 0 else 1)  # a pair is not parted
    order = list(range(len(members)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a test's order is no secret
    assert split_of([members[number] for number in order], plan) == [places[number] for number in order]


def assert_copies_stay_together(members: list[Member], places: list[str]) -> None:
    by_key: dict[str, set[str]] = {}
    for member, place in zip(members, places, strict=True):
        by_key.setdefault(member.group or member.content, set()).add(place)
    assert all(len(found) == 1 for found in by_key.values())


def test_another_seed_is_another_split() -> None:
    members = members_of({0: 30, 1: 30, 2: 30})
    assert split_of(members) != split_of(members, replace(PLAN, seed=1))


def test_added_pictures_move_few_others() -> None:
    before = members_of({0: 400, 1: 400, 2: 400})
    after = [*before, *(Member(f"new-{n}", n % 3) for n in range(120))]
    old = split_of(before)
    moved = sum(one != other for one, other in zip(old, split_of(after), strict=False))
    assert moved / len(before) < 0.03
    least = abs(Counter(old)["test"] - Counter(split_of(after))["test"])
    assert least == 24  # 20 % of those added: the split has grown, it was not dealt anew


def test_copies_with_conflicting_labels_are_excluded() -> None:
    members = [*members_of({0: 20, 1: 20, 2: 20}), Member("0-3", 1)]
    places = splits.assign(members, NAMES, PLAN, "stop")
    excluded = {member: place for member, place in zip(members, places, strict=True) if place.split == EXCLUDED}
    assert excluded == dict.fromkeys(
        (Member("0-3", 0), Member("0-3", 1)), Place(EXCLUDED, "its copies bear several labels")
    )


def test_a_split_of_the_source_is_kept_and_what_it_lacks_comes_out_of_the_rest() -> None:
    members = members_of({0: 50, 1: 50, 2: 50}, given="train") + members_of({0: 30, 1: 10, 2: 10}, given="test")
    places = Counter(zip((member.given for member in members), split_of(members), strict=True))
    assert places == {("train", "train"): 120, ("train", "val"): 30, ("test", "test"): 50}


def test_a_source_with_all_splits_is_left_alone() -> None:
    members = [member for given in ("train", "val", "test") for member in members_of({0: 9, 1: 5, 2: 7}, given=given)]
    assert split_of(members) == [member.given for member in members]


@pytest.mark.parametrize("here", ["train", ""])
def test_copies_of_what_the_source_judges_by_do_not_teach(here: str) -> None:
    judged = [*members_of({0: 9, 1: 9, 2: 9}, given="test"), *members_of({0: 5, 1: 5, 2: 5}, given="val")]
    leaks = [Member("test0-3", 0, here), Member("test0-4", 0, "val"), Member("val1-2", 1, here)]
    members = [*members_of({0: 20, 1: 20, 2: 20}, given=here), *judged, *leaks]
    places = splits.assign(members, NAMES, PLAN, "stop")
    assert [place.split for place in places[-3:]] == [EXCLUDED] * 3
    assert [place.reason[-10:] for place in places[-3:]] == ["test split", "test split", " val split"]
    assert all(place.split != EXCLUDED for place in places[:-3])


def test_near_copies_share_a_split_even_across_classes() -> None:
    members = members_of({0: 40, 1: 40, 2: 40})
    members = [replace(m, group="0-1") if m.content in {"0-1", "0-2", "0-3", "1-7"} else m for m in members]
    for seed in range(8):
        places = split_of(members, replace(PLAN, seed=seed))
        assert_copies_stay_together(members, places)
        assert Counter(places)["test"] in range(23, 26)


@given(folds=some.integers(2, 7), count=some.integers(14, 40), seed=some.integers(0, 9))
@limits(max_examples=25, deadline=None)
def test_each_picture_is_judged_in_exactly_one_fold(folds: int, count: int, seed: int) -> None:
    members = members_of({0: count, 1: count, 2: count + 3})
    judged: list[Member] = []
    for fold in range(folds):
        places = split_of(members, replace(PLAN, folds=folds, fold=fold, seed=seed))
        here = [member for member, place in zip(members, places, strict=True) if place == "test"]
        sizes = Counter(member.label for member in here)
        assert all(abs(size - (count + 3 * (label == 2)) / folds) < 1 for label, size in sizes.items())
        assert Counter(places)["val"] >= 3
        judged += here
    assert sorted(judged, key=repr) == sorted(members, key=repr)


def test_folds_rotate_val_where_the_test_split_is_given() -> None:
    members = members_of({0: 50, 1: 50, 2: 50}, given="train") + members_of({0: 30, 1: 10, 2: 10}, given="test")
    chosen: set[Member] = set()
    for fold in range(5):
        places = split_of(members, replace(PLAN, folds=5, fold=fold))
        assert places[150:] == ["test"] * 50
        chosen |= {member for member, place in zip(members, places, strict=True) if place == "val"}
    assert len(chosen) == 150


def test_folds_of_a_source_that_leaves_nothing_open_are_refused() -> None:
    members = [member for given in ("train", "val", "test") for member in members_of({0: 9, 1: 5, 2: 7}, given=given)]
    with pytest.raises(Refusal, match=r"prepare\.folds"):
        split_of(members, replace(PLAN, folds=3))


@pytest.mark.parametrize(
    ("counts", "folds", "message"),
    [
        ({0: 20, 1: 20, 2: 2}, 1, "class 'c' has 2 different .* at least 3"),
        ({0: 20, 1: 20, 2: 0}, 1, "class 'c' has 0 "),
        ({0: 20, 1: 1, 2: 2}, 1, r"class 'b' has 1 .* \(and 1 other classes\)"),
        ({0: 20, 1: 20, 2: 4}, 5, "class 'c' has 4 different .* at least 5"),
        ({0: 20, 1: 20, 2: 3}, 2, "class 'c' has 3 different .* at least 4"),
    ],
)
def test_too_few_pictures_of_a_class_are_refused(counts: dict[int, int], folds: int, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        split_of(members_of(counts), replace(PLAN, folds=folds))


def test_too_small_a_class_can_be_left_out() -> None:
    members = members_of({0: 20, 1: 2, 2: 20})
    places = splits.assign(members, NAMES, PLAN, "exclude")
    assert [place.reason for place in places if place.split == EXCLUDED] == ["its class has too few pictures"] * 2
    assert all((place.split == EXCLUDED) == (member.label == 1) for member, place in zip(members, places, strict=True))


def test_calibration_comes_out_of_train_in_equal_shares() -> None:
    members = members_of({0: 40, 1: 80, 2: 20})
    places = splits.assign(members, NAMES, PLAN, "stop")
    chosen = splits.calibration(members, places, 42, 0)
    kept = [(member.label, place.split) for member, place, here in zip(members, places, chosen, strict=True) if here]
    assert Counter(kept) == {(0, "train"): 12, (1, "train"): 24, (2, "train"): 6}


def test_ten_thousand_classes_take_seconds() -> None:
    members = [Member(f"{label}-{n}", label) for label in range(10_000) for n in range(5)]
    began = time.monotonic()
    places = splits.assign(members, [str(n) for n in range(10_000)], PLAN, "stop")
    assert Counter(place.split for place in places) == {"train": 30_000, "val": 10_000, "test": 10_000}
    splits.calibration(members, places, 1000, 0)
    assert time.monotonic() - began < 10
