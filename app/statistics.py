"""Doubt in numbers: bootstrap intervals, McNemar's exact test, and how many examples a difference needs.

Everything here is a pure function of arrays; which metric is resampled is up to the caller (`app.metrics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]
# A metric of weighted examples: weights float[resamples, examples] -> float[resamples, ...]. Weights that are
# all one give the metric itself; bootstrap weights say how often each example was drawn.
Statistic = Callable[[FloatArray], FloatArray]

RESAMPLES = 2000
# Weights in memory at a time. Larger is no faster (the matrix leaves the cache) and costs memory.
CHUNK_WEIGHTS = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A value between the ends of its 95% interval; all three are NaN where the value is undefined."""

    value: float
    low: float
    high: float

    def __neg__(self) -> Interval:
        """The interval of the negated value, its ends in order."""
        return Interval(-self.value, -self.high, -self.low)

    def to_dict(self) -> dict[str, float | None]:
        """JSON-able: NaN and infinities, which JSON does not have, become None."""
        parts = {"value": self.value, "low": self.low, "high": self.high}
        return {name: part if math.isfinite(part) else None for name, part in parts.items()}


def bootstrap_weights(count: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each of `count` examples is drawn in each resample, as chunks float[some, count].

    The rows of all chunks together are `resamples`; each row sums to `count`. The same arguments give the
    same rows, so two models resampled with one seed are resampled alike.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK_WEIGHTS // count)
    for start in range(0, resamples, rows):
        chunk = min(rows, resamples - start)
        drawn = generator.integers(0, count, size=(chunk, count))
        drawn += np.arange(chunk)[:, None] * count  # one bincount for all rows of the chunk
        yield np.bincount(drawn.ravel(), minlength=chunk * count).reshape(chunk, count).astype(np.float64)


def bootstrap(statistic: Statistic, count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """The statistic of every resample of `count` examples: float[resamples, ...].

    Source: Efron, 1979, "Bootstrap methods: another look at the jackknife".
    """
    return np.concatenate([statistic(weights) for weights in bootstrap_weights(count, resamples, seed)])


def percentile_interval(value: float, resampled: FloatArray, *, level: float = 0.95) -> Interval:
    """The middle `level` of the resampled values float[resamples] around `value`.

    Resamples in which the metric is undefined (NaN) are left out. A value that no resample can change (every
    answer right, a single example) gets an interval of no width: it says nothing about such a small sample.
    Source: Efron & Tibshirani, 1993, "An introduction to the bootstrap", chapter 13.
    """
    defined = resampled[~np.isnan(resampled)]
    if math.isnan(value) or not len(defined):
        return Interval(value, math.nan, math.nan)
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def paired_bootstrap(
    first: Statistic, second: Statistic, count: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The difference `first - second` of a metric of two models on the same examples, with its 95% interval.

    Each resample weighs both models' examples alike, so what makes an example hard for both cancels out.
    Source: Efron & Tibshirani, 1993, chapter 8; for classifiers Koehn, 2004, "Statistical significance tests
    for machine translation evaluation".
    """

    def difference(weights: FloatArray) -> FloatArray:
        return first(weights) - second(weights)

    value = difference(np.ones((1, count)))[0]
    return percentile_interval(float(value), bootstrap(difference, count, resamples=resamples, seed=seed))


@dataclass(frozen=True)
class McNemar:
    """b: examples only the first model has right; c: only the second; p_value: exact, two-sided."""

    b: int
    c: int
    p_value: float


def mcnemar_exact(correct_first: npt.NDArray[np.bool_], correct_second: npt.NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test that two models are right equally often, from bool[examples] of the same examples.

    Under equality the examples on which just one is right fall on either side like a fair coin. Without such
    examples p is 1. Source: McNemar, 1947, "Note on the sampling error of the difference between correlated
    proportions"; Dietterich, 1998, for its use on classifiers.
    """
    b = int(np.count_nonzero(correct_first & ~correct_second))
    c = int(np.count_nonzero(~correct_first & correct_second))
    p_value = float(stats.binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0
    return McNemar(b, c, p_value)


def examples_needed(b: int, c: int, count: int, *, power: float = 0.8, level: float = 0.05) -> int | None:
    """Test examples with which McNemar's test would find the observed difference with that power, two-sided.

    `b` and `c` of `count` examples are those that only the first and only the second model has right. Their
    rates are taken for the true ones. None when they are equal: no number of examples shows no difference.
    Source: Connor, 1987, "Sample size for testing differences in proportions for the paired-sample design".
    """
    if b == c:
        return None
    discordant, difference = (b + c) / count, (b - c) / count
    reject, detect = stats.norm.ppf(1 - level / 2), stats.norm.ppf(power)
    # The spread under "no difference", then under the difference; b + c >= |b - c| keeps the root real.
    spread = reject * math.sqrt(discordant) + detect * math.sqrt(discordant - difference**2)
    return math.ceil((spread / difference) ** 2)


def weighted_mean(values: npt.NDArray[Any]) -> Statistic:
    """The mean of one value an example, float[examples], as a statistic of their weights."""
    values = values.astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        return (weights @ values) / weights.sum(axis=1)

    return statistic
