"""Lucky seeds: is the best run of several better than the others let expect, or the best of so many?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import integrate, stats

from app import wording
from app.errors import RequestError

SIGNIFICANCE = 0.05
# Two others are the fewest that have a spread.
FEWEST = 3


@dataclass(frozen=True)
class Luck:
    """What to make of the best of several seeds; accuracies as fractions of 1.

    lucky: names of the seeds above what the others let expect. best: the name of the best; gain: how far it is above
    the mean of all. expected_gain: how far the best of so many would be by chance; NaN for fewer than three seeds.
    """

    lucky: tuple[str, ...]
    best: str
    gain: float
    expected_gain: float
    sentence: str


def lucky_seeds(accuracies: Sequence[float], names: Sequence[str]) -> Luck:
    """Which seeds' accuracies, all on the same examples, lie above what the other seeds of the model let expect.

    A seed is lucky when it is above the upper end of the prediction interval that the others make, at a level shared
    among the seeds: of families of equal runs about 1 in 20 has such a seed. Where the others are all equal they
    predict nothing. RequestError for no accuracy, or another number of names. Source: Grubbs, 1950, "Sample criteria
    for testing outlying observations", as the t interval for one new observation.
    """
    if not len(accuracies) or len(accuracies) != len(names):
        raise RequestError(f"{len(accuracies)} accuracies for {len(names)} names: each seed needs one of both")
    values = np.asarray(accuracies, dtype=np.float64)
    count = len(values)
    best = int(values.argmax())
    gain = float(values[best] - values.mean())
    if count < FEWEST:
        sentence = f"{count} {'seed is' if count == 1 else 'seeds are'} too few to tell a lucky one."
        return Luck((), names[best], gain, math.nan, sentence)
    limits = [_limit(np.delete(values, place), count) for place in range(count)]
    lucky = tuple(name for name, value, limit in zip(names, values, limits, strict=True) if value > limit)
    expected = expected_best(count) * float(values.std(ddof=1))
    if lucky:
        sentence = _lucky_sentence(names[best], float(values[best]), limits[best], count)
    else:
        sentence = _chance_sentence(names[best], gain, expected, count)
    return Luck(lucky, names[best], gain, expected, sentence)


@cache
def expected_best(count: int) -> float:
    """How many standard deviations the largest of `count` normal draws lies above their mean, on average."""

    def weighted(place: float) -> float:
        return float(place * count * stats.norm.pdf(place) * stats.norm.cdf(place) ** (count - 1))

    return float(integrate.quad(weighted, -10, 10)[0])


def _limit(others: np.ndarray, count: int) -> float:
    """The highest accuracy that the others let expect; infinite where they do not vary."""
    deviation = float(others.std(ddof=1))
    if not deviation:
        return math.inf
    reach = stats.t.ppf(1 - SIGNIFICANCE / count, len(others) - 1)
    return float(others.mean() + reach * deviation * math.sqrt(1 + 1 / len(others)))


def _lucky_sentence(name: str, value: float, limit: float, count: int) -> str:
    return (
        f"Lucky seed: {name} has {wording.decimals(value)}, the other {count - 1} let expect at most "
        f"{wording.decimals(limit)}. Report the mean of all {count}, not this run."
    )


def _chance_sentence(name: str, gain: float, expected: float, count: int) -> str:
    if not gain:
        return f"All {count} seeds have the same accuracy."
    return (
        f"The best of {count} seeds, {name}, is {wording.size_in_points(gain)} above their mean; the best of {count} "
        f"is {wording.size_in_points(expected)} above by chance alone. None is out of line."
    )
