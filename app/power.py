"""What a test set of a given size can show: power, the smallest difference, examples needed, and equivalence.

All of it is about two models' answers to the same examples, one training run each; `app.seeds` has several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from app.statistics import FloatArray

POWER = 0.8
SIGNIFICANCE = 0.05


def mcnemar_power(
    discordant: float, difference: float, count: int, *, level: float = SIGNIFICANCE, exact: bool = True
) -> float:
    """The chance that McNemar's test, two-sided, rejects equality.

    discordant: true share of examples that just one model has right; difference: true difference of accuracies, at
    most as large, both fractions of 1. exact: of the exact test, summed over every possible number of such examples;
    else the normal approximation. Source: Duffy, 1984, "Asymptotic and exact power for the McNemar test and its
    analogue with R controls per case"; for the approximation Connor, 1987.
    """
    if not discordant:
        return 0.0
    if not exact:
        reject = stats.norm.ppf(1 - level / 2) * math.sqrt(discordant)
        spread = math.sqrt(max(discordant - difference**2, np.finfo(float).tiny))
        far = (abs(difference) * math.sqrt(count) - reject) / spread
        near = (-abs(difference) * math.sqrt(count) - reject) / spread
        return float(stats.norm.cdf(far) + stats.norm.cdf(near))
    return _Rejections.of(discordant, count, level).power(difference / discordant)


@dataclass(frozen=True, eq=False)
class _Rejections:
    """For each number of discordant examples: its probability, and up to how many on the rarer side are rejected."""

    numbers: FloatArray
    probability: FloatArray
    most: FloatArray

    @classmethod
    def of(cls, discordant: float, count: int, level: float) -> _Rejections:
        # Numbers of discordant examples outside these bounds have no weight that shows.
        ends = stats.binom.ppf([1e-10, 1 - 1e-10], count, discordant)
        numbers = np.arange(ends[0], ends[1] + 1)
        # The exact test rejects up to where P(X <= most) <= level / 2; -1 is never.
        most = stats.binom.ppf(level / 2, numbers, 0.5)
        most = np.where(stats.binom.cdf(most, numbers, 0.5) <= level / 2, most, most - 1)
        return cls(numbers, stats.binom.pmf(numbers, count, discordant), most)

    def power(self, lead: float) -> float:
        """lead: the difference as a share of the discordant examples, -1 to 1."""
        share = (1 + lead) / 2
        sides = (stats.binom.cdf(self.most, self.numbers, side) for side in (share, 1 - share))
        return float(self.probability @ sum(sides))


def smallest_difference(
    discordant: float, count: int, *, power: float = POWER, level: float = SIGNIFICANCE
) -> float | None:
    """The smallest true difference of accuracies that McNemar's exact test finds with that power, a fraction of 1.

    discordant: the share of examples that just one model has right, taken for the true one. None when not even a
    model that wins all of them would be found. Source: as `mcnemar_power`, solved for the difference.
    """
    if not discordant:
        return None
    rejections = _Rejections.of(discordant, count, level)
    if rejections.power(1.0) < power:
        return None
    return discordant * float(optimize.brentq(lambda lead: rejections.power(lead) - power, 0.0, 1.0, xtol=1e-5))


def examples_needed(b: int, c: int, count: int, *, power: float = POWER, level: float = SIGNIFICANCE) -> int | None:
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


@dataclass(frozen=True)
class Equivalence:
    """Whether two accuracies are shown to differ by less than `margin`, a fraction of 1; p_value of both sides."""

    margin: float
    p_value: float

    @property
    def shown(self) -> bool:
        """Whether equivalence is shown."""
        return self.p_value < SIGNIFICANCE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"margin": self.margin, "p_value": self.p_value, "shown": self.shown}


def equivalence(b: int, c: int, count: int, margin: float) -> Equivalence:
    """Two one-sided tests that the accuracies differ by the margin or more, one way or the other; p is the larger.

    `b` and `c` of `count` examples are those that only the first and only the second model has right. Each is
    a score test, which also holds for few of them: two models that agree on five examples are not thereby equal.
    Source: Schuirmann, 1987, "A comparison of the two one-sided tests procedure and the power approach"; Tango, 1998,
    "Equivalence test and confidence interval for the difference in proportions for the paired-sample design".
    """
    too_low, too_high = _score(b, c, count, -margin), _score(c, b, count, -margin)
    return Equivalence(margin, float(stats.norm.sf(min(too_low, too_high))))


def _score(b: int, c: int, count: int, difference: float) -> float:
    """Tango's score for a true difference (b - c) / count: standard normal where that is so."""
    # The likeliest share of `c` under the difference solves a quadratic.
    linear = -b - c + (2 * count - b + c) * difference
    constant = -c * difference * (1 - difference)
    rarer = (math.sqrt(linear**2 - 8 * count * constant) - linear) / (4 * count)
    spread = math.sqrt(count * (2 * rarer + difference * (1 - difference)))
    return (b - c - count * difference) / spread
