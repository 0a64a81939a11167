"""Known answers, from formulas and published examples; and stated rates, from simulation."""

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats import contingency_tables

from stages.core import statistics
from stages.core.running.errors import Refusal

# ------------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (358, 359), (50, 100)])
def test_wilson_by_its_formula(right: int, count: int) -> None:
    z, share = 1.959963984540054, right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    assert statistics.wilson(right, count, 0.95) == pytest.approx((middle - half, middle + half))


@pytest.mark.parametrize(
    ("right", "count", "published"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_as_newcombe_published_it(right: int, count: int, published: tuple[float, float]) -> None:
    """Newcombe 1998, table I, method 3."""
    assert statistics.wilson(right, count, 0.95) == pytest.approx(published, abs=5e-5)


def test_mcnemar_as_published() -> None:
    """Fagerland, Lydersen and Laake 2013: airways before and after transplantation, exact conditional p 0.070."""
    assert statistics.mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert statistics.mcnemar(0, 0) == 1


def test_mcnemar_as_statsmodels_has_it() -> None:
    for lost, won in itertools.product((0, 1, 4, 9), (1, 3, 20)):
        expected = contingency_tables.mcnemar([[50, won], [lost, 60]], exact=True).pvalue  # pyright: ignore
        assert statistics.mcnemar(lost, won) == pytest.approx(expected)


def test_shares_are_equivalent_as_tango_published_it() -> None:
    """Tango 1998: two ways to disinfect lenses, 44 patients, one cured by one alone; margin 0.1, Z 1.709, p 0.044."""
    assert statistics.equivalent_shares(1, 0, 44, 0.1) == pytest.approx(stats.norm.sf(1.709), abs=5e-5)
    assert statistics.equivalent_shares(0, 1, 44, 0.1) == statistics.equivalent_shares(1, 0, 44, 0.1)


@pytest.mark.parametrize(
    ("lost", "won", "pictures", "margin"), [(3, 5, 200, 0.05), (12, 4, 359, 0.02), (0, 6, 90, 0.1)]
)
def test_shares_are_equivalent_by_the_likeliest_table_at_the_margin(
    lost: int, won: int, pictures: int, margin: float
) -> None:
    """The score test, with the constrained likelihood found by search instead of a formula."""

    def one_side(lost: int, won: int) -> float:
        def unlikely(share_lost: float) -> float:
            return -(
                lost * math.log(share_lost)
                + won * math.log(max(share_lost - margin, 1e-300))
                + (pictures - lost - won) * math.log(1 - 2 * share_lost + margin)
            )

        bounds = (margin + 1e-12, (1 + margin) / 2 - 1e-12)
        share = optimize.minimize_scalar(unlikely, bounds=bounds, options={"xatol": 1e-12}).x
        variance = pictures * (2 * share - margin - margin**2)
        return float(stats.norm.sf((won - lost + pictures * margin) / math.sqrt(variance)))

    expected = max(one_side(lost, won), one_side(won, lost))
    assert statistics.equivalent_shares(lost, won, pictures, margin) == pytest.approx(expected, rel=1e-4)


def test_shares_that_never_differ_are_equivalent_only_over_many_pictures() -> None:
    """As the chance to see no picture of those lost, were they a margin of all: 0.99 to the power of pictures."""
    assert statistics.equivalent_shares(0, 0, 100, 0.01) > 0.05
    assert statistics.equivalent_shares(0, 0, 400, 0.01) < 0.05
    with pytest.raises(Refusal, match="a margin lies between 0 and 1"):
        statistics.equivalent_shares(0, 0, 100, 1.5)


def test_resampled_pictures_agree_with_scipy() -> None:
    generator = np.random.default_rng(1)
    right, other = generator.random(300) < 0.9, generator.random(300) < 0.8
    found = stats.bootstrap(
        (right, other),
        lambda first, second, axis: first.mean(axis=axis) - second.mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert statistics.paired_bootstrap(right, other, 0.95) == pytest.approx((found.low, found.high), abs=0.004)
    assert statistics.paired_bootstrap(right, right, 0.95) == (0, 0)
    with pytest.raises(Refusal, match="300 and 299 answers are no pairs"):
        statistics.paired_bootstrap(right, other[1:], 0.95)


# -------------------------------------------------------------------------------------------------------- means

DRUG = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]  # hours of sleep gained: Student 1908
OTHER = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]


def test_sleep_as_student_published_it() -> None:
    """As R's t.test(paired = TRUE) prints it."""
    found = statistics.paired(DRUG, OTHER, 0.95, margin=None)
    assert found.difference == pytest.approx(1.58)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858))
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert found.sd == pytest.approx(1.229995, abs=5e-7)
    assert found.d == pytest.approx(1.58 / 1.229995, rel=1e-6)
    assert found.p_equivalent is None
    assert found.seeds_for_margin is None


def test_ranks_by_every_sign() -> None:
    """Wilcoxon's exact p, counted over all signs that the nine differences could have, ranks shared where they tie."""
    sizes = np.abs(np.round(np.subtract(DRUG, OTHER), 6))
    ranks = stats.rankdata(sizes[sizes > 0])
    sums = [np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(ranks))]
    expected = 2 * np.mean(np.array(sums) >= ranks.sum())  # all of them are gains
    assert statistics.paired(DRUG, OTHER, 0.95, margin=None).p_wilcoxon == pytest.approx(expected)


def test_ties_that_rounding_hides_are_ties() -> None:
    """One picture of 359 more or less, from other sums."""
    right, others = [353, 350, 348, 344, 344], [352, 349, 349, 343, 345]
    shares, other_shares = ([count / 359 for count in counts] for counts in (right, others))
    assert statistics.paired(shares, other_shares, 0.95, margin=None).p_wilcoxon == 1
    assert statistics.paired(right, others, 0.95, margin=None).p_wilcoxon == 1


def test_equivalence_by_hand() -> None:
    """Two one-sided t tests; equivalent at 5 % is a 90 % interval within the margin (Schuirmann 1987)."""
    differences, n = np.subtract(DRUG, OTHER), 10
    error = differences.std(ddof=1) / math.sqrt(n)
    for margin in (1.0, 2.0, 2.2, 2.3, 4.0):
        above, below = (differences.mean() + margin) / error, (differences.mean() - margin) / error
        p = statistics.paired(DRUG, OTHER, 0.95, margin).p_equivalent
        assert p == pytest.approx(max(stats.t.sf(above, n - 1), stats.t.cdf(below, n - 1)))
        _, high = statistics.mean_interval(differences.tolist(), 0.90) or (0, 0)
        assert (p is not None and p < 0.05) == (high < margin)


def test_a_mean_with_its_intervals() -> None:
    found = statistics.summary(DRUG, 0.9)
    reach = stats.t.ppf(0.95, 9) * np.std(DRUG, ddof=1) / math.sqrt(10)
    assert (found.n, found.mean) == (10, pytest.approx(2.33))
    assert found.sd == pytest.approx(math.sqrt(sum((value - 2.33) ** 2 for value in DRUG) / 9))
    assert (found.low, found.high) == pytest.approx((2.33 - reach, 2.33 + reach))
    drawn = np.random.default_rng(5).choice(DRUG, (20_000, 10)).mean(axis=1)
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=0.05)


def test_what_has_no_interval_says_why_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        once, flat = statistics.summary([0.9], 0.95), statistics.summary([0.9, 0.9, 0.3 * 3], 0.95)
        pair, shift = (statistics.paired([0.9], [0.8], 0.95, 0.01), statistics.paired([0.9, 0.7], [0.8, 0.6], 0.95, 1))
        equal = statistics.paired([0.9, 0.7], [0.9, 0.7], 0.95, 0.01)
    assert (once.said, once.sd, once.low) == ("n = 1, no interval", None, None)
    assert (flat.said, flat.sd, flat.low) == ("no spread: every seed gives the same", 0, None)
    assert (pair.said, pair.p, pair.difference) == ("n = 1, no interval", None, pytest.approx(0.1))
    assert (shift.said, shift.p, shift.p_equivalent) == ("no spread: every seed differs by the same", None, None)
    assert (equal.said, equal.difference) == ("no spread: equal in every seed", 0)


@pytest.mark.parametrize(
    ("values", "others", "message"),
    [
        ([], [], "no value at all"),
        ([0.9, 0.8], [0.9], "2 and 1 values are no pairs"),
        ([0.9, math.nan], [0.9, 0.8], "not every value is a number: 0.9, nan"),
        ([0.9, 0.8], [0.9, math.inf], "not every value is a number"),
    ],
)
def test_what_is_no_sample_is_refused_in_words(values: list[float], others: list[float], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        statistics.paired(values, others, 0.95, 0.01)


def test_a_margin_of_nothing_is_refused() -> None:
    with pytest.raises(Refusal, match="a margin is more than 0, and 0 is not"):
        statistics.paired([0.9, 0.8], [0.9, 0.7], 0.95, 0)


# ------------------------------------------------------------------------------------------ families and power


def test_holm_as_published() -> None:
    """The example of many textbooks; a test that was not possible is not one of the family."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.01, None, 0.04, 0.03, 0.005])[1] is None
    assert statistics.holm([0.01, None]) == [0.01, None]
    assert statistics.holm([None]) == [None]
    assert statistics.holm([]) == []


@pytest.mark.parametrize(("d", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (-1.0, 10)])
def test_seeds_as_gpower_tells(d: float, needed: int) -> None:
    """Two-sided t test of one mean, alpha 0.05, power 0.8."""
    assert statistics.seeds_needed(d, 0.95, 0.8) == needed


@pytest.mark.parametrize(("d", "power"), [(0.3, 0.9), (1.7, 0.8), (3.0, 0.95), (4.0, 0.9)])
def test_seeds_are_the_fewest_by_the_noncentral_t(d: float, power: float) -> None:
    def chance(n: int) -> float:
        limit = stats.t.ppf(0.975, n - 1)
        return float(stats.nct.sf(limit, n - 1, d * math.sqrt(n)) + stats.nct.cdf(-limit, n - 1, d * math.sqrt(n)))

    needed = statistics.seeds_needed(d, 0.95, power) or 0
    assert chance(needed) >= power
    assert needed == 2 or chance(needed - 1) < power


def test_what_no_number_of_seeds_shows_has_none() -> None:
    assert statistics.seeds_needed(0, 0.95) is None
    assert statistics.seeds_needed(1e-6, 0.95) is None
    assert statistics.seeds_needed(1e6, 0.95) == 2


# --------------------------------------------------------------------------------------------------- in words


@pytest.mark.parametrize(
    ("difference", "p", "p_equivalent", "said"),
    [
        (0.02, 0.01, 0.9, "better"),
        (-0.02, 0.01, None, "worse"),
        (0.002, 0.01, 0.01, "better, yet equivalent within 1.00 points"),
        (0.002, 0.2, 0.01, "equivalent within 1.00 points"),
        (0.02, 0.2, 0.2, "no difference is shown"),
        (0.02, 0.051, None, "no difference is shown"),
    ],
)
def test_verdicts(difference: float, p: float, p_equivalent: float | None, said: str) -> None:
    assert statistics.verdict(difference, p, p_equivalent, 0.95, "1.00 points") == said


# ---------------------------------------------------------------------------------------------- by simulation


def rates(shift: float, seeds: int, sd: float = 0.01, margin: float = 0.01, times: int = 300) -> tuple[float, float]:
    """How often a planted difference is shown, and how often it is called equivalent."""
    generator = np.random.default_rng(7)
    base = generator.normal(0.9, 0.05, (times, seeds))
    found = [
        statistics.paired(one, other, 0.95, margin)
        for one, other in zip(base + generator.normal(shift, sd, base.shape), base, strict=True)
    ]
    shown = np.mean([one.p is not None and one.p < 0.05 for one in found])
    return float(shown), float(np.mean([one.p_equivalent is not None and one.p_equivalent < 0.05 for one in found]))


@pytest.mark.slow
def test_nothing_planted_is_found_as_rarely_as_stated() -> None:
    """Four standard errors of 300 draws about 5 %."""
    shown, equivalent = rates(shift=0, seeds=5)
    assert 0.01 < shown < 0.10
    assert equivalent < 0.5  # few seeds do not show it


@pytest.mark.slow
def test_what_is_planted_is_found_as_often_as_planned() -> None:
    seeds = statistics.seeds_needed(1.0, 0.95, 0.8) or 0
    shown, equivalent = rates(shift=0.01, seeds=seeds)
    assert 0.73 < shown < 0.90
    assert equivalent < 0.10  # at the very margin


@pytest.mark.slow
def test_equal_things_are_equivalent_over_many_seeds() -> None:
    _, equivalent = rates(shift=0, seeds=30)
    assert equivalent > 0.95


# ---------------------------------------------------------------------------------------------------- medians


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
