"""What pictures can tell apart, and what nothing beats."""

import math

import numpy as np
import pandas as pd
import pytest

from stages.core import statistics
from stages.core.reporting import charts, comparison

ANSWERS = pd.DataFrame(
    {
        "label": ["a"] * 30,
        "one": ["b"] * 9 + ["a"] * 21,
        "two": ["a"] * 28 + ["b"] * 2,
        "same": ["b"] * 9 + ["a"] * 21,
    }
)


def test_mcnemar_is_the_binomial_test_of_the_differing_pictures() -> None:
    [found] = comparison.compare(ANSWERS, [("one", "two")], 0.95, 0.01).values()
    tail = sum(math.comb(11, count) for count in (0, 1, 2)) / 2**11
    assert (found.lost, found.won, found.difference) == (9, 2, -7 / 30)
    assert found.p == found.uncorrected == pytest.approx(2 * tail)
    assert found.verdict == "no difference is shown"
    [bold] = comparison.compare(ANSWERS, [("one", "two")], 0.9, 0.01).values()
    assert bold.verdict == "the first is worse"


def test_a_family_is_corrected_together_and_the_verdict_goes_by_it() -> None:
    """Holm: the smallest p of three counts threefold; the two others are 1."""
    pairs = [("one", "two"), ("one", "same"), ("same", "one")]
    found = comparison.compare(ANSWERS, pairs, 0.9, 0.01)
    assert found["one", "two"].p == pytest.approx(3 * found["one", "two"].uncorrected)
    assert found["one", "two"].verdict == "no difference is shown"
    assert found["one", "same"].p == 1
    told = comparison.table(list(found.values()))
    assert "the 3 pairs of this table" in told.note
    assert told.heads[5] == "p of 3 (Holm)"


@pytest.mark.slow
def test_networks_that_hardly_differ_are_equivalent_within_a_margin_that_is_wide_enough() -> None:
    labels = ["a"] * 2000
    answers = pd.DataFrame(
        {"label": labels, "one": labels, "two": ["b"] * 6 + labels[6:], "far": ["b"] * 40 + labels[40:]}
    )
    verdicts = {
        (other, margin): found.verdict
        for margin in (0.001, 0.02, 0.03)
        for (_, other), found in comparison.compare(answers, [("one", "two"), ("one", "far")], 0.95, margin).items()
    }
    assert verdicts["two", 0.001] == "the first is better"  # p = 2 / 2**6, uncorrected by 40 of 40
    assert verdicts["two", 0.02] == "the first is better, yet equivalent within 2.0 points"
    assert verdicts["far", 0.02] == "the first is better"
    assert verdicts["far", 0.03] == "the first is better, yet equivalent within 3.0 points"
    [same] = comparison.compare(answers, [("one", "one")], 0.95, 0.02).values()
    assert same.verdict == "equivalent within 2.0 points"


def test_interval_of_a_difference_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    draws = generator.multinomial(150, (0.06, 0.02, 0.92), size=2000)
    covered = [
        low < -0.04 < high
        for low, high in (statistics.difference_interval(int(draw[0]), int(draw[1]), 150, 0.95) for draw in draws)
    ]
    assert 0.94 < np.mean(covered) < 0.98


def test_front_holds_what_nothing_beats() -> None:
    rows = [
        {"network": "a", "accuracy": 99.0, "cost": 1.0},
        {"network": "b", "accuracy": 98.0, "cost": 2.0},
        {"network": "c", "accuracy": 99.5, "cost": 3.0},
        {"network": "d", "accuracy": 99.5, "cost": 4.0},
    ]
    assert charts.front(rows, "cost") == ["a", "c"]
