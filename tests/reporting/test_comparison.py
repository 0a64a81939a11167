"""What pictures can tell apart, and what nothing beats."""

import math

import numpy as np
import pandas as pd
import pytest

from stages.core import statistics
from stages.core.reporting import charts, comparison


def test_mcnemar_is_the_binomial_test_of_the_differing_pictures() -> None:
    answers = pd.DataFrame({"label": ["a"] * 30, "one": ["b"] * 9 + ["a"] * 21, "two": ["a"] * 28 + ["b"] * 2})
    found = comparison.compare(answers, "one", "two", 0.95)
    tail = sum(math.comb(11, count) for count in (0, 1, 2)) / 2**11
    assert (found.lost, found.won, found.difference) == (9, 2, -7 / 30)
    assert found.p == pytest.approx(2 * tail)
    assert not found.shown
    assert comparison.compare(answers, "one", "two", 0.9).verdict == "the first is worse"


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
