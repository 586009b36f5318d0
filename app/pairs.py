"""Two models on the same test examples: the difference, the tests of it, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.power import SIGNIFICANCE, Equivalence, equivalence, examples_needed, smallest_difference
from app.seeds import (
    SeedValues,
    examples_needed_with_seeds,
    hierarchical_interval,
    seeds_equivalence,
    seeds_test,
    smallest_difference_of_seeds,
    spread,
)
from app.statistics import ROUNDING, FloatArray, Interval, McNemar, Resampling, bca_interval, holm, mcnemar_exact

# A claim about a way of training, from a handful of seeds, has to be clearer than one about two trained models: the
# spread between so few seeds is known badly.
SEEDS_SIGNIFICANCE = 0.01

Outcome = Literal["same", "better", "worse", "borderline", "undecided"]


@dataclass(frozen=True)
class Pair:
    """Two models on `count` examples: accuracy of the first less that of the second, as a fraction of 1.

    The first is the better placed one, except that the floor always comes second. p_value: McNemar's exact test for
    one seed each, else that of `app.seeds.seeds_test`; adjusted_p_value: by Holm, for all `num_pairs` pairs that were
    compared. same_labels: not one predicted label differs. seeds: how many each model was trained with.

    examples_needed: test examples that would show this difference at 80% power; None when both are right equally
    often or more seeds are needed. smallest_difference: what this test set can show with that power; None where it can
    show nothing. Both are for the level that Holm asks of the first of the pairs. equivalence: None without a margin.
    metrics: the difference and its 95% interval of each metric of `app.metrics.METRICS`. permutation_p_values: of
    those that McNemar's test says nothing about, see `app.comparison.permutation_p_values`; not adjusted for anything.
    """

    first: str
    second: str
    count: int
    difference: Interval
    p_value: float
    adjusted_p_value: float
    same_labels: bool
    examples_needed: int | None
    mcnemar: McNemar | None = None
    smallest_difference: float | None = None
    equivalence: Equivalence | None = None
    seeds: tuple[int, int] = (1, 1)
    num_pairs: int = 1
    metrics: Mapping[str, Interval] = field(default_factory=dict)
    permutation_p_values: Mapping[str, float] = field(default_factory=dict)

    @property
    def several_seeds(self) -> bool:
        """Whether either model was trained with more than one seed."""
        return self.seeds != (1, 1)

    @property
    def significance(self) -> float:
        """What the adjusted p has to be below for a difference to be called one."""
        return SEEDS_SIGNIFICANCE if self.several_seeds else SIGNIFICANCE

    @property
    def rejects(self) -> bool:
        """Whether the test, corrected for the number of pairs, rejects equality."""
        return self.adjusted_p_value < self.significance

    @property
    def outcome(self) -> Outcome:
        """What interval and test say of the first model; "borderline" when only one sees a difference."""
        if self.same_labels:
            return "same"
        excludes_zero = self.difference.low > 0 or self.difference.high < 0
        if excludes_zero and self.rejects:
            return "better" if self.difference.value > 0 else "worse"
        return "borderline" if excludes_zero or self.rejects else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "first": self.first,
            "second": self.second,
            "seeds": list(self.seeds),
            "accuracy_difference": self.difference.to_dict(),
            "mcnemar": None if self.mcnemar is None else vars(self.mcnemar),
            "p_value": self.p_value,
            "adjusted_p_value": self.adjusted_p_value,
            "outcome": self.outcome,
            "examples_needed": self.examples_needed,
            "smallest_difference": self.smallest_difference,
            "equivalence": None if self.equivalence is None else self.equivalence.to_dict(),
            "metric_differences": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "permutation_p_values": dict(self.permutation_p_values),
        }


@dataclass(frozen=True, eq=False)
class Side:
    """One model of a pair: predicted int[seeds, n], and `measured`, its metrics by seed: float[seeds, metrics].

    metrics: their names, "accuracy" among them.
    """

    name: str
    label_ids: npt.NDArray[np.integer[Any]]
    predicted: npt.NDArray[np.integer[Any]]
    measured: Resampling
    metrics: tuple[str, ...]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each seed is right on each example, bool[seeds, n]."""
        return self.predicted == self.label_ids

    def seed_values(self, metric: str) -> SeedValues:
        """One metric of each seed, and of its resamples."""
        column = self.metrics.index(metric)
        return SeedValues(self.measured.value[:, column], self.measured.bootstrap[:, :, column])


def accuracy_side(
    name: str,
    label_ids: npt.NDArray[np.integer[Any]],
    predicted: npt.NDArray[np.integer[Any]],
    *,
    seed: int = 0,
) -> Side:
    """The side of a model of which only the predicted labels int[seeds, n] are known, measured by accuracy."""
    right = (predicted == label_ids).astype(np.float64)

    def accuracy(weights: FloatArray) -> FloatArray:
        return (weights @ right.T / weights.sum(axis=1, keepdims=True))[:, :, None]

    return Side(name, label_ids, predicted, Resampling(accuracy, len(label_ids), seed), ("accuracy",))


def make_pair(first: Side, second: Side, *, num_pairs: int = 1, margin: float | None = None) -> Pair:
    """Compare two sides that were resampled with one seed; its p-values are not adjusted yet (`adjust`).

    num_pairs: how many pairs are compared in all. margin: what the accuracies may differ by to count as equivalent.
    """
    intervals = {name: difference(first, second, name) for name in first.metrics}
    seeds = (len(first.predicted), len(second.predicted))
    judge = _judge_one_seed if seeds == (1, 1) else _judge_seeds
    found = judge(first, second, num_pairs, margin)
    one = first.predicted[0]
    return Pair(
        first=first.name,
        second=second.name,
        count=len(first.label_ids),
        difference=intervals["accuracy"],
        p_value=found.p_value,
        adjusted_p_value=found.p_value,
        same_labels=bool((first.predicted == one).all() and (second.predicted == one).all()),
        examples_needed=found.examples_needed,
        mcnemar=found.mcnemar,
        smallest_difference=found.smallest_difference,
        equivalence=found.equivalence,
        seeds=seeds,
        num_pairs=num_pairs,
        metrics=intervals,
    )


def difference(first: Side, second: Side, metric: str) -> Interval:
    """The difference of a metric, of its means over seeds where there are several, with its 95% interval.

    BCa for one seed each; else the hierarchical interval of `app.seeds`.
    """
    one, other = first.seed_values(metric), second.seed_values(metric)
    if len(one.values) > 1 or len(other.values) > 1:
        return hierarchical_interval(one, other, seed=first.measured.seed)
    column = first.metrics.index(metric)
    without = first.measured.jackknife[:, 0, column] - second.measured.jackknife[:, 0, column]
    resampled = one.resampled[:, 0] - other.resampled[:, 0]
    return bca_interval(float(one.values[0] - other.values[0]), resampled, without)


def adjust(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs with their p-values, and those of their equivalence, adjusted by Holm for their number."""
    adjusted = holm([pair.p_value for pair in pairs])
    pairs = [replace(pair, adjusted_p_value=p_value) for pair, p_value in zip(pairs, adjusted, strict=True)]
    asked = [pair.equivalence for pair in pairs if pair.equivalence is not None]
    if len(asked) < len(pairs):
        return tuple(pairs)
    equivalent = holm([found.p_value for found in asked])
    return tuple(
        replace(pair, equivalence=replace(found, p_value=p_value))
        for pair, found, p_value in zip(pairs, asked, equivalent, strict=True)
    )


@dataclass(frozen=True)
class _Judgement:
    """What the tests say of a pair, each field as in `Pair`."""

    p_value: float
    examples_needed: int | None
    smallest_difference: float | None
    equivalence: Equivalence | None
    mcnemar: McNemar | None = None


def _judge_one_seed(first: Side, second: Side, num_pairs: int, margin: float | None) -> _Judgement:
    count = len(first.label_ids)
    test = mcnemar_exact(first.correct[0], second.correct[0])
    level = SIGNIFICANCE / num_pairs
    return _Judgement(
        p_value=test.p_value,
        examples_needed=examples_needed(test.b, test.c, count, level=level),
        smallest_difference=smallest_difference((test.b + test.c) / count, count, level=level),
        equivalence=None if margin is None else equivalence(test.b, test.c, count, margin),
        mcnemar=test,
    )


def _judge_seeds(first: Side, second: Side, num_pairs: int, margin: float | None) -> _Judgement:
    count = len(first.label_ids)
    found = spread(first.seed_values("accuracy"), second.seed_values("accuracy"))
    shares = first.correct.mean(axis=0) - second.correct.mean(axis=0)
    gain = float(shares.mean())
    level = SEEDS_SIGNIFICANCE / num_pairs
    return _Judgement(
        p_value=seeds_test(gain, found, int(np.count_nonzero(np.abs(shares) > ROUNDING))),
        examples_needed=examples_needed_with_seeds(gain, found, count, level=level),
        smallest_difference=smallest_difference_of_seeds(found, level=level),
        equivalence=None if margin is None else seeds_equivalence(gain, found, count, margin),
    )
