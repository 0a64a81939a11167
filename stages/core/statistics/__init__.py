"""How sure a number is, and whether a difference is one."""

from stages.core.statistics.families import holm
from stages.core.statistics.intervals import Interval, mean_interval, median_interval
from stages.core.statistics.means import Paired, Summary, paired, summary
from stages.core.statistics.power import POWER, seeds_needed
from stages.core.statistics.shares import (
    difference_interval,
    equivalent_shares,
    mcnemar,
    paired_bootstrap,
    wilson,
)
from stages.core.statistics.verdicts import NOT_SHOWN, against, verdict, word

__all__ = [
    "NOT_SHOWN",
    "POWER",
    "Interval",
    "Paired",
    "Summary",
    "against",
    "difference_interval",
    "equivalent_shares",
    "holm",
    "mcnemar",
    "mean_interval",
    "median_interval",
    "paired",
    "paired_bootstrap",
    "seeds_needed",
    "summary",
    "verdict",
    "wilson",
    "word",
]
