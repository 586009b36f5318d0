"""How far the seeds of one model are apart, and whether the best of them was lucky."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app import wording
from app.comparison import lucky_seeds
from app.metrics import METRICS, Evaluation


@dataclass(frozen=True)
class SeedSpread:
    """Mean, sample standard deviation (NaN for a single seed) and ends of one figure over seeds."""

    mean: float
    deviation: float
    low: float
    high: float


def seed_spread(values: Sequence[float]) -> SeedSpread:
    """The spread of one figure over the seeds."""
    return SeedSpread(
        mean=float(np.mean(values)),
        deviation=float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        low=float(np.min(values)),
        high=float(np.max(values)),
    )


def metric_spreads(evaluations: Sequence[Evaluation]) -> dict[str, SeedSpread]:
    """The spread of every metric over the seeds' evaluations, by the names in `METRICS`."""
    return {name: seed_spread([one.metrics[name].value for one in evaluations]) for name in METRICS}


def seed_note(name: str, seeds: Sequence[int], evaluations: Sequence[Evaluation]) -> str:
    """Say how far the seeds are apart, and whether the best of them is a lucky one.

    `name` is the model's; seeds and evaluations go together.
    """
    accuracies = [one.metrics["accuracy"].value for one in evaluations]
    found = seed_spread(accuracies)
    luck = lucky_seeds(accuracies, [f"seed {seed}" for seed in seeds])
    return (
        f"{name} over {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}: test accuracy "
        f"{wording.decimals(found.mean)} on average, from {wording.decimals(found.low)} to "
        f"{wording.decimals(found.high)}, standard deviation {wording.decimals(found.deviation)}. {luck.sentence}"
    )
