"""How many seeds it takes to see a difference."""

from bisect import bisect_left

POWER = 0.8  # Cohen 1988
MOST = 100_000  # beyond, nobody counts


def seeds_needed(d: float, confidence: float, power: float = POWER) -> int | None:
    """For a paired t test to see a difference of `d` standard deviations so often; None for what is never seen."""
    from statsmodels.stats.power import TTestPower  # takes seconds, which who wants an interval need not wait

    def seen(seeds: int) -> bool:
        """The test's power has no number where it is all but one."""
        return not TTestPower().power(d, seeds, 1 - confidence) < power

    counts = range(2, MOST)
    found = bisect_left(counts, True, key=seen)
    return counts[found] if found < len(counts) else None
