"""Known answers, from formulas and published examples."""

import math

import numpy as np
import pytest

from stages.core import statistics


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (358, 359), (50, 100)])
def test_wilson_by_its_formula(right: int, count: int) -> None:
    z, share = 1.959963984540054, right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    assert statistics.wilson(right, count, 0.95) == pytest.approx((middle - half, middle + half))


def test_calibration_error_by_hand() -> None:
    confidences = np.array([0.95, 0.95, 0.65, 0.65, 1.0])
    right = np.array([True, False, True, True, True])
    expected = 2 / 5 * abs(0.95 - 0.5) + 2 / 5 * abs(0.65 - 1) + 1 / 5 * 0
    assert statistics.calibration_error(confidences, right, 20) == pytest.approx(expected)


def test_one_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.5, 1, 200_000)
    assert statistics.calibration_error(confidences, generator.uniform(size=200_000) < confidences, 15) < 0.005


@pytest.mark.slow
def test_the_interval_of_a_median_covers_it_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    intervals = [statistics.median_interval(generator.exponential(size=25), 0.9) for _ in range(200)]
    assert 0.82 < np.mean([low <= math.log(2) <= high for low, high in intervals]) < 0.97


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert statistics.median_interval(np.full(5, 2.0), 0.95) == (2, 2)


def test_gains_that_differ_by_rounding_alone_have_an_interval_of_no_width() -> None:
    """And no warning of lost precision, which would be an error here."""
    gains = [0.1, 0.1 + 2e-17, 0.3 - 0.2]
    low, high = statistics.mean_interval(gains, 0.95) or (0.0, 1.0)
    assert low == high == gains[0]
