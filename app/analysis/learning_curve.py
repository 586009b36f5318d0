"""How accuracy grows with the training rows, and what more of them would bring: a power law with its doubt."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import optimize

from app import wording
from app.errors import RequestError
from app.metrics import SMALLEST_PROBABILITY
from app.statistics import FloatArray, Interval, bootstrap_weights, percentile_interval

IntArray = npt.NDArray[np.int64]


class Answered(Protocol):
    """A model's answers on the test split: `app.metrics.Examples`, `app.answers.Answers`, or what is like them."""

    @property
    def label_ids(self) -> IntArray:
        """The true label ids, int64[n]."""

    @property
    def probabilities(self) -> FloatArray:
        """Calibrated probabilities, float64[n, c]."""

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the likeliest label is the true one, bool[n]."""


# Rows of the training split, int64[some] in ascending order, and a seed -> the answers on the test split.
Fit = Callable[[IntArray, int], Answered]

SHARES = (0.1, 0.2, 0.5, 1.0)
FACTORS = (2, 4)
RESAMPLES = 500  # each one is a fit of the power law
# A gain from twice the rows below this, as a fraction of 1, is called none: half a point.
FLAT_GAIN = 0.005
STEEPEST = 2.0  # exponents beyond are seen on no text data and only fit noise
STARTS = (0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Point:
    """The model trained on `rows` rows, `share` of all: its test metrics with 95% intervals."""

    rows: int
    share: float
    accuracy: Interval
    log_loss: Interval


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = a + b * n ** -c for n training rows: a is what no number of rows takes away."""

    a: float
    b: float
    c: float

    def error(self, rows: npt.ArrayLike) -> FloatArray:
        """The expected share of errors, float64 of the shape of `rows`."""
        return np.asarray(self.a + self.b * np.asarray(rows, dtype=np.float64) ** -self.c)


@dataclass(frozen=True)
class Forecast:
    """What `factor` times the rows are expected to give: accuracy, and its gain over the law's at all rows."""

    factor: int
    rows: int
    accuracy: Interval
    gain: Interval


@dataclass(frozen=True)
class LearningCurve:
    """Points by rows, the law through them, and forecasts; `repeats` models stand behind each point."""

    points: tuple[Point, ...]
    law: PowerLaw
    forecasts: tuple[Forecast, ...]
    repeats: int

    @property
    def sentences(self) -> tuple[str, ...]:
        """The forecast in words, whether the curve has flattened, and what the intervals leave out."""
        first = self.forecasts[0]
        said = [_forecast_sentence(first), _flatness(first)]
        if self.repeats == 1:
            said.append(
                "The interval covers the choice of test examples, not the luck of one training run for each size."
            )
        return tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "points": [_plain(point) for point in self.points],
            "law": dataclasses.asdict(self.law),
            "forecasts": [_plain(forecast) for forecast in self.forecasts],
            "repeats": self.repeats,
            "sentences": list(self.sentences),
        }


def nested_subsets(label_ids: npt.ArrayLike, shares: Sequence[float] = SHARES, seed: int = 0) -> tuple[IntArray, ...]:
    """Rows of the training split for each share: int64[some], ascending; a smaller subset lies in every larger one.

    Stratified: of each label the same share, rounded up, so that no label goes missing. RequestError for shares
    that do not rise from above 0 to 1.
    """
    rising = all(low < high for low, high in pairwise(shares))
    if not shares or not rising or shares[0] <= 0 or shares[-1] != 1:
        raise RequestError(f"shares {tuple(shares)}: allowed are rising numbers above 0 of which the last is 1")
    ids = np.asarray(label_ids)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(np.flatnonzero(ids == label_id)) for label_id in np.unique(ids)]
    return tuple(
        np.sort(np.concatenate([order[: math.ceil(round(share * len(order), 6))] for order in orders]))
        for share in shares
    )


def trace(
    fit: Fit, label_ids: npt.ArrayLike, *, shares: Sequence[float] = SHARES, repeats: int = 1, seed: int = 0
) -> LearningCurve:
    """Train on growing subsets of the training rows int[n], fit the power law, forecast more rows.

    `fit` trains on the rows it is given and answers the same test examples each time. With `repeats` above 1 it
    does so with other subsets and seeds, and the intervals cover the luck of training too. RequestError for fewer
    than three shares: three unknowns are fitted.
    """
    if len(shares) < 3:
        raise RequestError(f"{len(shares)} shares: at least 3 are needed to fit a law with 3 unknowns")
    drawn = [nested_subsets(label_ids, shares, seed + repeat) for repeat in range(repeats)]
    rows = np.array([len(subset) for subset in drawn[0]])
    answers = [
        [fit(subsets[place], seed + repeat) for repeat, subsets in enumerate(drawn)] for place in range(len(shares))
    ]
    errors = np.array([[~answer.correct for answer in of_share] for of_share in answers], dtype=np.float64)
    losses = np.array([[_losses(answer) for answer in of_share] for of_share in answers])
    resampled = resample_means(errors, seed=seed)
    resampled_losses = resample_means(losses, seed=seed)
    points = tuple(
        Point(
            rows=int(rows[place]),
            share=float(share),
            accuracy=percentile_interval(1 - float(errors[place].mean()), 1 - resampled[:, place]),
            log_loss=percentile_interval(float(losses[place].mean()), resampled_losses[:, place]),
        )
        for place, share in enumerate(shares)
    )
    law, forecasts = extrapolate(rows, errors.mean(axis=(1, 2)), resampled, errors.shape[2])
    return LearningCurve(points, law, forecasts, repeats)


def resample_means(values: FloatArray, *, resamples: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """Bootstrap means of float[points, repeats, examples] -> float[resamples, points].

    The examples are drawn alike for all points, since all answered the same; of the repeats, each point draws its
    own. Source: Efron & Tibshirani, 1993, "An introduction to the bootstrap", chapter 8.
    """
    points, repeats, count = values.shape
    weights = np.concatenate(list(bootstrap_weights(count, resamples, seed)))
    means = np.einsum("prn,sn->spr", values, weights) / count
    generator = np.random.default_rng(seed + 1)
    chosen = generator.integers(0, repeats, size=(resamples, points, repeats))
    return np.take_along_axis(means, chosen, axis=2).mean(axis=2)


def extrapolate(
    rows: npt.ArrayLike, errors: npt.ArrayLike, resampled: FloatArray, count: int, *, factors: Sequence[int] = FACTORS
) -> tuple[PowerLaw, tuple[Forecast, ...]]:
    """The law through errors float[points] at rows int[points], and forecasts at multiples of the last rows.

    `resampled` float[resamples, points] are the errors in each bootstrap resample of `count` test examples: the
    law is fitted to each, and the middle 95% of what these laws say is the interval. It takes the law for true, so it
    is rather too narrow, most of all where the curve is flat.
    """
    at, found = np.asarray(rows, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    law = fit_power_law(at, found, count)
    laws = [fit_power_law(at, row, count, starts=(law.c,)) for row in resampled]
    forecasts = []
    for factor in factors:
        more = factor * at[-1]
        accuracy = np.array([1 - one.error(more) for one in laws])
        gain = np.array([one.error(at[-1]) - one.error(more) for one in laws])
        forecasts.append(
            Forecast(
                factor=factor,
                rows=int(more),
                accuracy=percentile_interval(float(1 - law.error(more)), accuracy),
                gain=percentile_interval(float(law.error(at[-1]) - law.error(more)), gain),
            )
        )
    return law, tuple(forecasts)


def fit_power_law(rows: FloatArray, errors: FloatArray, count: int, starts: Sequence[float] = STARTS) -> PowerLaw:
    """Weighted least squares of a + b * n ** -c through errors float[points] at rows float[points].

    Weights are the inverse standard errors of shares of `count` test examples. Bounds: 0 <= a, 0 <= b, and c from 0
    to `STEEPEST`. Source: Cortes et al., 1993, "Learning curves: asymptotic values and rate of convergence";
    Figueroa et al., 2012, "Predicting sample size required for classification performance", for the weighted fit.
    """
    # Agresti and Coull's shift keeps a point without a single error from weighing infinitely much.
    shifted = (errors * count + 2) / (count + 4)
    weights = 1 / np.sqrt(shifted * (1 - shifted) / count)
    relative = rows / rows[-1]  # so that all three unknowns are of a size

    def residuals(unknown: FloatArray) -> FloatArray:
        a, b, c = unknown
        return np.asarray((a + b * relative**-c - errors) * weights)

    def slopes(unknown: FloatArray) -> FloatArray:
        _, b, c = unknown
        power = relative**-c
        return np.stack([np.ones_like(power), power, -b * power * np.log(relative)], axis=1) * weights[:, None]

    bounds = ([0.0, 0.0, 0.0], [1.0, 1.0, STEEPEST])
    last = min(max(float(errors[-1]), 1e-3), 1 - 1e-3)
    found = [
        optimize.least_squares(residuals, [last / 2, last / 2, c], jac=slopes, bounds=bounds)
        for c in (min(max(start, 1e-3), STEEPEST - 1e-3) for start in starts)
    ]
    a, b, c = min(found, key=lambda one: one.cost).x
    return PowerLaw(float(a), float(b * rows[-1] ** c), float(c))


def _losses(answers: Answered) -> FloatArray:
    """-log of the true label's probability for each example, in nats: float64[n]."""
    of_label = answers.probabilities[np.arange(len(answers.label_ids)), answers.label_ids]
    return np.asarray(-np.log(np.maximum(of_label, SMALLEST_PROBABILITY)))


def _forecast_sentence(forecast: Forecast) -> str:
    times = {2: "Twice", 4: "Four times"}.get(forecast.factor, f"{forecast.factor} times")
    return f"{times} the rows ({forecast.rows:,}) would be expected to give {wording.points(forecast.gain)}."


def _flatness(doubled: Forecast) -> str:
    """Whether there is more to gain, from the forecast for twice the rows."""
    limit = f"{100 * FLAT_GAIN:g} points"
    if doubled.gain.high < FLAT_GAIN:
        return f"At 100% the curve has flattened: twice the rows would give less than {limit}."
    if doubled.gain.low >= FLAT_GAIN:
        return f"At 100% the curve has not flattened: twice the rows would give at least {limit}."
    return f"Whether the curve has flattened at 100% stays open: the gain may lie on either side of {limit}."


def _plain(shown: Point | Forecast) -> dict[str, Any]:
    values = {field.name: getattr(shown, field.name) for field in dataclasses.fields(shown)}
    return {name: value.to_dict() if isinstance(value, Interval) else value for name, value in values.items()}
