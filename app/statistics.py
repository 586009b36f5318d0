"""Doubt in numbers: bootstrap intervals, tests of paired answers, and Holm's correction.

Everything here is a pure function of arrays; which metric is resampled is up to the caller (`app.metrics`). What a
test set of a given size can show is in `app.power`, several training seeds are in `app.seeds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]
# A metric of weighted examples: weights float[resamples, examples] -> float[resamples, ...]. Weights that are
# all one give the metric itself; bootstrap weights say how often each example was drawn.
Statistic = Callable[[FloatArray], FloatArray]

RESAMPLES = 2000
LEVEL = 0.95
# Weights in memory at a time. Larger is no faster (the matrix leaves the cache) and costs memory.
CHUNK_WEIGHTS = 1_000_000
# The jackknife leaves out single examples up to the first number, beyond it this many blocks of them.
EXACT_JACKKNIFE = 2000
JACKKNIFE_BLOCKS = 200
# Differences below are rounding: the same accuracy summed in another order.
ROUNDING = 1e-12


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


def jackknife(statistic: Statistic, count: int) -> FloatArray:
    """The statistic without each example in turn, float[examples, ...], or without each block: float[blocks, ...].

    Beyond `EXACT_JACKKNIFE` examples, `JACKKNIFE_BLOCKS` blocks are left out instead, each of examples spread over the
    whole. The skewness that BCa takes from them is the same in expectation, and its error moves an end by about a
    hundredth of the standard error. Source: Quenouille, 1956, "Notes on bias in estimation", who left out groups.
    """
    if count < 2:
        return statistic(np.ones((1, count)))
    blocks = count if count <= EXACT_JACKKNIFE else JACKKNIFE_BLOCKS
    block_of = np.arange(count) % blocks
    rows = max(1, CHUNK_WEIGHTS // count)
    chunks = (np.arange(start, min(start + rows, blocks)) for start in range(0, blocks, rows))
    return np.concatenate([statistic((block_of != chunk[:, None]).astype(np.float64)) for chunk in chunks])


def percentile_interval(value: float, resampled: FloatArray, *, level: float = LEVEL) -> Interval:
    """The middle `level` of the resampled values float[resamples] around `value`.

    Resamples in which the metric is undefined (NaN) are left out. A value that no resample can change (every
    answer right, a single example) gets an interval of no width: it says nothing about such a small sample.
    Source: Efron & Tibshirani, 1993, "An introduction to the bootstrap", chapter 13.
    """
    tail = (1 - level) / 2
    return _between(value, resampled, tail, 1 - tail)


def bca_interval(value: float, resampled: FloatArray, jackknifed: FloatArray, *, level: float = LEVEL) -> Interval:
    """As `percentile_interval`, with the two tails moved for bias and skewness: bias-corrected and accelerated.

    `jackknifed` float[blocks] is that of `jackknife`. Ties with `value` count half, as accuracies have many. Where the
    correction is not defined (no resample on one side of the value, extreme skewness) it is the percentile interval.
    Source: Efron, 1987, "Better bootstrap confidence intervals".
    """
    defined = resampled[~np.isnan(resampled)]
    if math.isnan(value) or not len(defined):
        return Interval(value, math.nan, math.nan)
    below = np.mean(defined < value - ROUNDING)
    share = below + np.mean(np.abs(defined - value) <= ROUNDING) / 2
    if not 0 < share < 1:
        return percentile_interval(value, defined, level=level)
    bias = stats.norm.ppf(share)
    shifted = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    shrink = 1 - _acceleration(jackknifed) * shifted
    if (shrink <= 0).any():
        return percentile_interval(value, defined, level=level)
    low, high = stats.norm.cdf(bias + shifted / shrink)
    return _between(value, defined, low, high)


def _acceleration(jackknifed: FloatArray) -> float:
    """A sixth of the skewness of the statistic's influence values; 0 where nothing varies."""
    defined = jackknifed[~np.isnan(jackknifed)]
    influence = defined.mean() - defined if len(defined) else defined
    spread = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * spread**1.5) if spread > ROUNDING**2 else 0.0


def _between(value: float, resampled: FloatArray, low: float, high: float) -> Interval:
    """The quantiles `low` and `high`, fractions of 1, of the resampled values that are defined."""
    defined = resampled[~np.isnan(resampled)]
    if math.isnan(value) or not len(defined):
        return Interval(value, math.nan, math.nan)
    ends = np.quantile(defined, [low, high])
    return Interval(float(value), float(ends[0]), float(ends[1]))


@dataclass(frozen=True, eq=False)
class Resampling:
    """A statistic of `count` examples, and what resampling them makes of it, each computed when it is first asked for.

    Two with the same count and seed are resampled alike, so that their differences are paired.
    """

    statistic: Statistic
    count: int
    seed: int = 0
    resamples: int = RESAMPLES

    @cached_property
    def value(self) -> FloatArray:
        """The statistic of the examples as they are, float[...]."""
        return self.statistic(np.ones((1, self.count)))[0]

    @cached_property
    def bootstrap(self) -> FloatArray:
        """That of each bootstrap resample, float[resamples, ...]."""
        return bootstrap(self.statistic, self.count, resamples=self.resamples, seed=self.seed)

    @cached_property
    def jackknife(self) -> FloatArray:
        """That without each example or block, float[blocks, ...]."""
        return jackknife(self.statistic, self.count)


def paired_bootstrap(
    first: Statistic, second: Statistic, count: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The difference `first - second` of a metric of two models on the same examples, with its 95% BCa interval.

    Each resample weighs both models' examples alike, so what makes an example hard for both cancels out.
    Source: Efron & Tibshirani, 1993, chapters 8 and 14; for classifiers Koehn, 2004, "Statistical significance
    tests for machine translation evaluation".
    """

    def difference(weights: FloatArray) -> FloatArray:
        return first(weights) - second(weights)

    found = Resampling(difference, count, seed, resamples)
    return bca_interval(float(found.value), found.bootstrap, found.jackknife)


def paired_permutation(both: Statistic, count: int, *, permutations: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """The two-sided p that two models are interchangeable, for any metrics, by swapping their answers at random.

    `both` gives the metrics of 2 x `count` examples, the first model's answers, then the second's to the same
    examples, as float[permutations, ...]; p is float[...], NaN where a metric is undefined.
    In each permutation a fair coin decides for each example which model gets which answer. The observed answers
    count as one of the permutations, so p is never 0. It tests that the models are interchangeable, of which an equal
    metric is a part. Source: Fisher, 1935, "The design of experiments", section 21; Phipson & Smyth, 2010,
    "Permutation p-values should never be zero".
    """

    def difference(swapped: FloatArray) -> FloatArray:
        return both(np.hstack([1 - swapped, swapped])) - both(np.hstack([swapped, 1 - swapped]))

    observed = np.abs(difference(np.zeros((1, count)))[0])
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK_WEIGHTS // (2 * count))
    as_large = np.zeros(observed.shape)
    for start in range(0, permutations, rows):
        swapped = generator.integers(0, 2, size=(min(rows, permutations - start), count)).astype(np.float64)
        as_large += np.count_nonzero(np.abs(difference(swapped)) >= observed - ROUNDING, axis=0)
    return np.where(np.isnan(observed), np.nan, (as_large + 1) / (permutations + 1))


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


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p-values, in their order, adjusted for their number: each can be held against the level by itself.

    The chance that any true equality is rejected stays below the level, whatever holds for the others and however
    the tests depend on each other. Source: Holm, 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return tuple(adjusted.tolist())


def weighted_mean(values: npt.NDArray[Any]) -> Statistic:
    """The mean of one value an example, float[examples], as a statistic of their weights."""
    values = values.astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        return (weights @ values) / weights.sum(axis=1)

    return statistic
