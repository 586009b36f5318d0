"""What several trainings of one model, alike but for the seed, say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from app import wording
from app.metrics import METRICS, Evaluation
from app.statistics import Interval

# A best seed further above the mean than this many standard deviations of the seeds is called a lucky one.
LUCKY_DEVIATIONS = 1.0


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation and ends of one figure over two or more seeds."""

    mean: float
    deviation: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of one figure over the seeds, at least two."""
    return Spread(
        mean=float(np.mean(values)),
        deviation=float(np.std(values, ddof=1)),
        low=float(np.min(values)),
        high=float(np.max(values)),
    )


def metric_spreads(evaluations: Sequence[Evaluation]) -> dict[str, Spread]:
    """The spread of every metric over the seeds' evaluations, by the names in `METRICS`."""
    return {name: spread([one.metrics[name].value for one in evaluations]) for name in METRICS}


def evaluate_together(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of a model from those of its seeds: every figure is the mean over the seeds.

    The ends of an interval are the means of the seeds' ends; the confusion matrix is that of the first seed.
    """
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    metrics = {name: _mean_interval([one.metrics[name] for one in evaluations]) for name in first.metrics}
    per_class = {
        label: {part: _mean_interval([one.per_class[label][part] for one in evaluations]) for part in parts}
        for label, parts in first.per_class.items()
    }
    return replace(first, metrics=metrics, per_class=per_class)


def _mean_interval(intervals: Sequence[Interval]) -> Interval:
    return Interval(*(float(np.mean([getattr(one, end) for one in intervals])) for end in ("value", "low", "high")))


def seed_note(name: str, seeds: Sequence[int], evaluations: Sequence[Evaluation]) -> str:
    """Say how far the seeds are apart, and what the best of them owes to luck. Seeds and evaluations go together."""
    accuracies = [one.metrics["accuracy"].value for one in evaluations]
    found = spread(accuracies)
    said = (
        f"{name} over {len(seeds)} seeds: test accuracy {wording.decimals(found.mean)} on average, from "
        f"{wording.decimals(found.low)} to {wording.decimals(found.high)}, standard deviation "
        f"{wording.decimals(found.deviation)}."
    )
    gain = found.high - found.mean
    if gain <= LUCKY_DEVIATIONS * found.deviation or not found.deviation:
        return said
    best = seeds[int(np.argmax(accuracies))]
    return f"{said} Seed {best} is a lucky one, {100 * gain:.1f} points above that: report the average, not this seed."
