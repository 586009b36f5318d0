"""Shares of texts: their intervals, and a test that two shares are equal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from app.statistics import Interval


def proportion(hits: int, rows: int) -> Interval:
    """`hits` of `rows` with Wilson's 95% interval; all NaN for no rows.

    Unlike the bootstrap it keeps a width where all or none are hits, and it holds on a few dozen rows. It takes rows
    as drawn one by one. Source: Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not rows:
        return Interval(math.nan, math.nan, math.nan)
    ends = stats.binomtest(int(hits), int(rows)).proportion_ci(method="wilson")
    return Interval(hits / rows, float(ends.low), float(ends.high))


def share(mask: npt.NDArray[Any]) -> Interval:
    """The share of True in bool[n], as `proportion` has it."""
    return proportion(int(np.count_nonzero(mask)), len(mask))


def paired_difference(b: int, c: int, rows: int) -> Interval:
    """Accuracy of the first of two models less that of the second, on the same `rows` > 0 texts, with a 95% interval.

    b: texts only the first has right; c: only the second. Source: Agresti & Min, 2005, "Simple improved confidence
    intervals for comparing matched proportions": Wald's interval after half a text is added to each of the four cells.
    """
    low_b, low_c, count = b + 0.5, c + 0.5, rows + 2
    middle = (low_b - low_c) / count
    spread = math.sqrt(low_b + low_c - (low_b - low_c) ** 2 / count) / count
    reach = float(stats.norm.ppf(0.975)) * spread
    return Interval((b - c) / rows, max(-1.0, middle - reach), min(1.0, middle + reach))


def difference(first: Interval, second: Interval) -> Interval:
    """The first of two shares of different texts less the second, with a 95% interval, from their Wilson intervals.

    Source: Newcombe, 1998, "Interval estimation for the difference between independent proportions: comparison of
    eleven methods", method 10.
    """
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    return Interval(value, low, value + math.hypot(first.high - first.value, second.value - second.low))


def lower_than(hits: int, rows: int, other_hits: int, other_rows: int) -> float:
    """The p-value of Fisher's exact test, one-sided: the first share being lower than the other by chance alone.

    1 where either side has no rows. Source: Fisher, 1935, "The logic of inductive inference".
    """
    if not rows or not other_rows:
        return 1.0
    table = [[hits, rows - hits], [other_hits, other_rows - other_hits]]
    return float(stats.fisher_exact(table, alternative="less").pvalue)
