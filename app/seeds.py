"""Several training seeds a model: how far a mean over seeds moves with other seeds and other test examples.

The seeds of a model and the test examples are crossed: every seed answers every example. Three parts make a mean over
seeds vary. Examples: another test set is harder, or suits one model. Seeds: another seed trains a better model. And
their interaction: which examples a seed gets wrong by chance; it is in the spread between seeds and, averaged over
them, in the spread between examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from app.power import POWER, Equivalence
from app.statistics import LEVEL, ROUNDING, FloatArray, Interval


@dataclass(frozen=True, eq=False)
class SeedValues:
    """A metric of each seed of a model: values float[seeds]; of each resample of examples float[resamples, seeds]."""

    values: FloatArray
    resampled: FloatArray


@dataclass(frozen=True)
class Spread:
    """The variance of a mean over seeds, or of a difference of two, in parts.

    examples: from the choice of test examples. seeds: from that of seeds, as their spread shows it. interaction: the
    part of `seeds` that `examples` has too. degrees: degrees of freedom of `seeds`, infinite where that is 0.
    """

    examples: float
    seeds: float
    interaction: float
    degrees: float

    @property
    def between_seeds(self) -> float:
        """What seeds add that no larger test set takes away."""
        return max(0.0, self.seeds - self.interaction)

    @property
    def total(self) -> float:
        """The variance, the interaction counted once."""
        return self.examples + self.between_seeds

    @property
    def cautious_total(self) -> float:
        """The variance, the interaction counted twice: what a claim is held against."""
        return self.examples + self.seeds

    def degrees_of(self, total: float) -> float:
        """Degrees of freedom of a total that holds `seeds` as a part, the part of examples known exactly."""
        return self.degrees * (total / self.seeds) ** 2 if self.seeds else math.inf


def spread(first: SeedValues, second: SeedValues | None = None) -> Spread:
    """The parts of the variance of a mean over seeds, or of the difference of two models' means.

    A model with a single seed, whose spread cannot be seen, is taken to spread as the other does; at least one must
    have two seeds or more. Source: Obuchowski & Rockette, 1995, "Hypothesis testing of diagnostic accuracy for
    multiple readers and multiple tests: an ANOVA approach with dependent observations", seeds for readers, nested in
    the models, covariances from the bootstrap; degrees of freedom after Satterthwaite, 1946, as in Hillis, 2007, "A
    comparison of denominator degrees of freedom methods for multiple observer ROC analysis".
    """
    models = [first] if second is None else [first, second]
    means = first.resampled.mean(axis=1) - (0 if second is None else second.resampled.mean(axis=1))
    examples = float(np.nanvar(means))
    seen = [_of_one_seed(model) for model in models if len(model.values) > 1]
    parts = [(variance / count, count - 1) for variance, _, count in seen]
    shared = sum(interaction / count for _, interaction, count in seen)
    if len(seen) < len(models):
        variance, interaction, count = seen[0]
        parts = [(variance * (1 + 1 / count), count - 1)]
        shared = interaction * (1 + 1 / count)
    seeds = sum(variance for variance, _ in parts)
    doubt = sum(variance**2 / degrees for variance, degrees in parts)
    return Spread(examples, seeds, shared, seeds**2 / doubt if doubt else math.inf)


def _of_one_seed(model: SeedValues) -> tuple[float, float, int]:
    """The variance between seeds, the part of it that is interaction, and the number of seeds."""
    count = len(model.values)
    defined = model.resampled[~np.isnan(model.resampled).any(axis=1)]
    covariances = np.cov(defined, rowvar=False, bias=True)
    own = np.trace(covariances) / count
    common = (covariances.sum() - np.trace(covariances)) / (count * (count - 1))
    return float(model.values.var(ddof=1)), float(max(0.0, own - common)), count


def hierarchical_bootstrap(first: SeedValues, second: SeedValues | None = None, *, seed: int = 0) -> FloatArray:
    """The mean over seeds, or the difference of two models' means, of every resample: float[resamples].

    Each resample draws the seeds of either model with replacement, and the examples, the same for all of them.
    Source: Owen, 2007, "The pigeonhole bootstrap".
    """
    # A stream of its own: the same seed drew the examples, and the two draws must not go together.
    generator = np.random.default_rng([seed, 1])

    def mean(model: SeedValues) -> FloatArray:
        resamples, seeds = model.resampled.shape
        drawn = generator.integers(0, seeds, size=(resamples, seeds))
        return np.take_along_axis(model.resampled, drawn, axis=1).mean(axis=1)

    return mean(first) - (0 if second is None else mean(second))


def hierarchical_interval(
    first: SeedValues, second: SeedValues | None = None, *, seed: int = 0, level: float = LEVEL
) -> Interval:
    """The mean over seeds, or the difference of two models' means, with its interval over seeds and examples.

    The hierarchical bootstrap gives the shape. By itself it is too narrow where seeds matter most (five seeds drawn
    from five spread less than new ones would) and too wide where they matter least (the interaction counts twice), so
    its width is set to that of a t interval with the variance and degrees of freedom of `spread`.
    """
    value = float(first.values.mean() - (0 if second is None else second.values.mean()))
    drawn = hierarchical_bootstrap(first, second, seed=seed)
    drawn = drawn[~np.isnan(drawn)]
    if math.isnan(value) or not len(drawn):
        return Interval(value, math.nan, math.nan)
    if drawn.std() <= ROUNDING:
        return Interval(value, value, value)
    found = spread(first, second)
    # Where the spread between seeds is no more than interaction, the examples alone make the width.
    degrees = found.degrees_of(found.total) if found.between_seeds else math.inf
    tail = (1 + level) / 2
    wider = stats.t.ppf(tail, degrees) / stats.norm.ppf(tail) * math.sqrt(found.total) / drawn.std()
    low, high = np.quantile(drawn - drawn.mean(), [1 - tail, tail]) * wider
    return Interval(value, value + float(low), value + float(high))


def seeds_test(difference: float, found: Spread, differing: int) -> float:
    """The two-sided p that two models' means over seeds are equal, for other seeds and other examples.

    A t test with the cautious variance. differing: examples on which the models' shares of right seeds differ; fewer
    than a handful carry no more than a sign test could make of them, however alike the seeds are.
    """
    if abs(difference) <= ROUNDING:
        return 1.0
    total = found.cautious_total
    error = math.sqrt(total)
    p_value = 2 * stats.t.sf(abs(difference) / error, found.degrees_of(total)) if error else 0.0
    return float(min(1.0, max(p_value, 0.5 ** (differing - 1))))


def seeds_equivalence(difference: float, found: Spread, count: int, margin: float) -> Equivalence:
    """As `app.power.equivalence`, for means over seeds: two one-sided t tests with the cautious variance.

    A difference of the margin makes at least margin (1 - margin) of variance an example where whole answers change,
    which keeps a few alike answers from passing for equivalence.
    """
    total = max(found.cautious_total, margin * (1 - margin) / count)
    room = (margin - abs(difference)) / math.sqrt(total)
    return Equivalence(margin, float(stats.t.sf(room, found.degrees_of(total))))


def smallest_difference_of_seeds(found: Spread, *, level: float, power: float = POWER) -> float | None:
    """The smallest true difference of means over seeds that `seeds_test` finds with that power; None if none varies."""
    error = math.sqrt(found.cautious_total)
    return error * _reach(found, level, power) if error else None


def examples_needed_with_seeds(
    difference: float, found: Spread, count: int, *, level: float, power: float = POWER
) -> int | None:
    """Test examples with which `seeds_test` would find the observed difference with that power, with as many seeds.

    None when the means are equal, or so close that more seeds are needed and no number of examples is enough.
    """
    room = (difference / _reach(found, level, power)) ** 2 - found.between_seeds
    if abs(difference) <= ROUNDING or room <= 0:
        return None
    return math.ceil(count * (found.cautious_total - found.between_seeds) / room)


def _reach(found: Spread, level: float, power: float) -> float:
    """The standard errors that a difference must be away from 0 to be found with that power."""
    degrees = found.degrees_of(found.cautious_total)
    return float(stats.t.ppf(1 - level / 2, degrees) + stats.t.ppf(power, degrees))
