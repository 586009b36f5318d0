"""What a model is worth on the test split: metrics, each with a 95% bootstrap interval over test examples.

A metric is a function `Examples -> Statistic`: it prepares what it can once (sorting, bins, indicators) and
returns the metric as a function of example weights. The plain value is the one with all weights 1, so value
and interval come from the same lines. To add a metric, write such a function and give it a line in `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from app.calibration import BINS, bin_ids, check_probabilities
from app.errors import RequestError
from app.seeds import SeedValues, hierarchical_interval
from app.statistics import (
    RESAMPLES,
    FloatArray,
    Interval,
    Resampling,
    Statistic,
    percentile_interval,
    weighted_mean,
)

IntArray = npt.NDArray[np.int64]
PER_CLASS = ("precision", "recall", "f1")
# A probability of exactly 0 for the true label would cost infinitely much: log loss takes this one instead.
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Examples:
    """Test examples with a model's answers: label_ids int64[n], probabilities float64[n, c]."""

    label_ids: IntArray
    probabilities: FloatArray

    @property
    def num_classes(self) -> int:
        """Classes the model chooses from, whether or not an example has them."""
        return self.probabilities.shape[1]

    @property
    def predicted(self) -> IntArray:
        """The likeliest label id, int64[n]; of equals the smallest."""
        return self.probabilities.argmax(axis=1)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the likeliest label is the true one, bool[n]."""
        return self.predicted == self.label_ids


def accuracy(examples: Examples) -> Statistic:
    """The share of examples whose likeliest label is the true one."""
    return weighted_mean(examples.correct)


def log_loss(examples: Examples) -> Statistic:
    """Mean -log of the true label's probability, in nats; 0 counts as `SMALLEST_PROBABILITY`."""
    of_label = examples.probabilities[np.arange(len(examples.label_ids)), examples.label_ids]
    return weighted_mean(-np.log(np.maximum(of_label, SMALLEST_PROBABILITY)))


def brier(examples: Examples) -> Statistic:
    """Squared distance of the probabilities to the one-hot label, summed over classes: 0 best, 2 worst.

    This is Brier's own sum over classes; for two classes twice the one-column form that some tools report.
    Source: Brier, 1950, "Verification of forecasts expressed in terms of probability".
    """
    one_hot = np.eye(examples.num_classes)[examples.label_ids]
    return weighted_mean(((examples.probabilities - one_hot) ** 2).sum(axis=1))


def expected_calibration_error(examples: Examples) -> Statistic:
    """As `app.calibration.expected_calibration_error`, over weighted examples."""
    confidence = examples.probabilities.max(axis=1)
    # A bin's weighted gap is |sum of w * (correct - confidence)|: dividing by the bin's weight cancels out.
    gaps = _columns(bin_ids(confidence), examples.correct - confidence, BINS)

    def statistic(weights: FloatArray) -> FloatArray:
        return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)

    return statistic


def per_class(examples: Examples) -> Statistic:
    """Precision, recall and F1 of each class: float[resamples, 3, c].

    Where a class is never predicted its precision is 0/0, where it has no examples its recall is, and where
    both its F1 is: each counts as 0, as in scikit-learn with `zero_division=0`.
    """
    ones = np.ones(len(examples.label_ids))
    predicted = _columns(examples.predicted, ones, examples.num_classes)
    actual = _columns(examples.label_ids, ones, examples.num_classes)
    hits = _columns(examples.label_ids, examples.correct.astype(np.float64), examples.num_classes)

    def statistic(weights: FloatArray) -> FloatArray:
        hit, said, had = weights @ hits, weights @ predicted, weights @ actual
        return np.stack([_ratio(hit, said), _ratio(hit, had), _ratio(2 * hit, said + had)], axis=1)

    return statistic


def macro_f1(examples: Examples) -> Statistic:
    """The plain mean of F1 over all classes; one without examples and predictions counts 0."""
    classes = per_class(examples)
    return lambda weights: classes(weights)[:, PER_CLASS.index("f1")].mean(axis=1)


def auroc(examples: Examples) -> Statistic:
    """Area under the ROC curve: of label id 1 for two classes, else the mean of each against the rest.

    Classes that no example has, or all have, are left out of the mean; NaN when that leaves none.
    Source: Hanley & McNeil, 1982; Provost & Domingos, 2000, for one against the rest.
    """
    class_ids = [1] if examples.num_classes == 2 else range(examples.num_classes)
    areas = [_area(examples.label_ids == label_id, examples.probabilities[:, label_id]) for label_id in class_ids]

    def statistic(weights: FloatArray) -> FloatArray:
        by_class = np.stack([area(weights) for area in areas], axis=1)
        defined = ~np.isnan(by_class)
        return _ratio(np.nansum(by_class, axis=1), defined.sum(axis=1), undefined=np.nan)

    return statistic


def _area(positive: npt.NDArray[np.bool_], probability: FloatArray) -> Statistic:
    """The chance that a positive example gets a higher probability than a negative one, ties half."""
    order = np.argsort(probability, kind="stable")
    ranked = probability[order]
    positives = np.flatnonzero(positive[order])
    below = np.searchsorted(ranked, ranked[positives], side="left")
    up_to = np.searchsorted(ranked, ranked[positives], side="right")

    def statistic(weights: FloatArray) -> FloatArray:
        weights = weights.take(order, axis=1)
        cumulative = np.zeros((len(weights), len(order) + 1))
        np.cumsum(weights, axis=1, out=cumulative[:, 1:])
        of_positives = weights[:, positives]
        total = of_positives.sum(axis=1)
        # Weight of all examples ranked lower, ties half; positives among themselves make total ** 2 / 2.
        lower = (cumulative[:, below] + cumulative[:, up_to]) / 2
        wins = (of_positives * lower).sum(axis=1) - total**2 / 2
        return _ratio(wins, total * (cumulative[:, -1] - total), undefined=np.nan)

    return statistic


def _columns(column: IntArray, values: FloatArray, num_columns: int) -> sparse.csr_array:
    """Sparse float[n, num_columns] that holds each example's value in its column."""
    rows = np.arange(len(column))
    return sparse.csr_array((values, (rows, column)), shape=(len(column), num_columns))


def _ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any], undefined: float = 0.0) -> FloatArray:
    """numerator / denominator, and `undefined` where the denominator is 0."""
    result = np.full(numerator.shape, undefined)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


METRICS: dict[str, Callable[[Examples], Statistic]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "log_loss": log_loss,
    "auroc": auroc,
    "brier": brier,
    "expected_calibration_error": expected_calibration_error,
}
# The t interval of several seeds knows no bounds: its ends are cut off here. A metric without a line is not cut.
BOUNDS: dict[str, tuple[float, float]] = {
    "accuracy": (0, 1),
    "macro_f1": (0, 1),
    "log_loss": (0, np.inf),
    "auroc": (0, 1),
    "brier": (0, 2),
    "expected_calibration_error": (0, 1),
}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's metrics on `count` test examples, with 95% intervals.

    metrics: by the names in `METRICS`. per_class: label name -> precision, recall, f1. support: label name ->
    its test examples. confusion: int64[c, c] in label order, rows the true label, columns the predicted; of several
    seeds the sum.
    """

    label_names: tuple[str, ...]
    count: int
    metrics: Mapping[str, Interval]
    per_class: Mapping[str, Mapping[str, Interval]]
    support: Mapping[str, int]
    confusion: IntArray

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; a metric that is undefined here (NaN) is None."""
        return {
            "label_names": list(self.label_names),
            "count": self.count,
            "metrics": {name: interval.to_dict() for name, interval in self.metrics.items()},
            "per_class": {
                label: {"support": self.support[label]} | {name: part.to_dict() for name, part in parts.items()}
                for label, parts in self.per_class.items()
            },
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    label_ids: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    label_names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Every metric of `METRICS` and every class's precision, recall and F1, with 95% percentile intervals.

    label_ids int[n], probabilities float[n, c], c = len(label_names). The interval covers the choice of test
    examples, drawn one by one; not that of training seeds, nor of groups of like examples. RequestError when
    the shapes do not fit, a value is not finite, or a row does not sum to 1.
    """
    one_seed = np.asarray(probabilities, dtype=np.float64)[None]
    return evaluate_seeds(label_ids, one_seed, label_names, resamples=resamples, seed=seed)


def evaluate_seeds(
    label_ids: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    label_names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """As `evaluate`, for a model trained with several seeds: probabilities float[seeds, n, c].

    Values are means over seeds. Intervals cover the choice of test examples and that of seeds (`app.seeds`); with
    one seed they are those of `evaluate`, and of seeds they say nothing. RequestError as there, and for no seed.
    """
    seeds = each_seed(label_ids, probabilities)
    names = _check_names(label_names, seeds[0].num_classes)
    count = len(seeds[0].label_ids)
    found = Resampling(each(everything, seeds), count, seed, resamples)
    bounds = [BOUNDS.get(name, (-np.inf, np.inf)) for name in METRICS] + [(0, 1)] * (len(PER_CLASS) * len(names))
    intervals = [_interval(found, column, bound) for column, bound in enumerate(bounds)]
    return Evaluation(
        label_names=names,
        count=count,
        metrics=dict(zip(METRICS, intervals, strict=False)),
        per_class=_by_label(names, intervals[len(METRICS) :]),
        support=dict(zip(names, np.bincount(seeds[0].label_ids, minlength=len(names)).tolist(), strict=True)),
        confusion=np.sum([confusion_counts(examples) for examples in seeds], axis=0),
    )


def each_seed(label_ids: npt.ArrayLike, probabilities: npt.ArrayLike) -> list[Examples]:
    """The examples with the answers of each seed, from int[n] and float[seeds, n, c]; RequestError as `evaluate`."""
    seeds = np.asarray(probabilities, dtype=np.float64)
    if seeds.ndim != 3 or not len(seeds):
        raise RequestError(f"probabilities of shape {seeds.shape}: [seeds, n, classes] with at least 1 seed is needed")
    return [Examples(*check_probabilities(label_ids, of_seed)) for of_seed in seeds]


def each(metric: Callable[[Examples], Statistic], seeds: Sequence[Examples]) -> Statistic:
    """The metric of each seed: float[resamples, seeds, ...]."""
    statistics = [metric(examples) for examples in seeds]
    return lambda weights: np.stack([statistic(weights) for statistic in statistics], axis=1)


def all_metrics(examples: Examples) -> Statistic:
    """Every metric of `METRICS`, in that order: float[resamples, metrics]."""
    metrics = [metric(examples) for metric in METRICS.values()]
    return lambda weights: np.column_stack([metric(weights) for metric in metrics])


def everything(examples: Examples) -> Statistic:
    """`all_metrics`, then `per_class` flattened: float[resamples, metrics + 3c]."""
    metrics, classes = all_metrics(examples), per_class(examples)
    return lambda weights: np.hstack([metrics(weights), classes(weights).reshape(len(weights), -1)])


def _interval(found: Resampling, column: int, bounds: tuple[float, float]) -> Interval:
    """The interval of one column of `everything` of each seed."""
    values, resampled = found.value[:, column], found.bootstrap[:, :, column]
    if len(values) == 1:
        return percentile_interval(values[0], resampled[:, 0])
    free = hierarchical_interval(SeedValues(values, resampled), seed=found.seed)
    return Interval(free.value, *np.clip([free.low, free.high], *bounds).tolist())


def confusion_counts(examples: Examples) -> IntArray:
    """Examples by true label (row) and predicted label (column): int64[c, c]."""
    classes = examples.num_classes
    cells = examples.label_ids * classes + examples.predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _by_label(names: tuple[str, ...], intervals: Sequence[Interval]) -> dict[str, dict[str, Interval]]:
    """The flattened [3, c] of `per_class` as label name -> metric name -> interval."""
    return {
        name: {metric: intervals[place * len(names) + label_id] for place, metric in enumerate(PER_CLASS)}
        for label_id, name in enumerate(names)
    }


def _check_names(label_names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    names = tuple(label_names)
    if len(names) != num_classes:
        raise RequestError(f"{len(names)} label names for {num_classes} columns of probabilities")
    if len(set(names)) != len(names):
        raise RequestError(f"label names are not distinct: {', '.join(names)}")
    return names
