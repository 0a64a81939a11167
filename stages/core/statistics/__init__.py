"""How sure a number is, and whether a difference is one."""

from stages.core.statistics.intervals import Interval, mean_interval, median_interval
from stages.core.statistics.shares import calibration_error, difference_interval, wilson
from stages.core.statistics.verdicts import against, word

__all__ = [
    "Interval",
    "against",
    "calibration_error",
    "difference_interval",
    "mean_interval",
    "median_interval",
    "wilson",
    "word",
]
