"""Confidence that means what it says: temperature scaling, and how far confidence and accuracy are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field
from scipy import optimize, special

from app.errors import RequestError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# A temperature outside is a sign of logits that carry nothing (above) or of a validation split without a
# single error (below), not of a better fit.
TEMPERATURES = (0.05, 20.0)
BINS = 15
# float32 softmax over hundreds of classes sums to 1 within 1e-5.
SUM_TOLERANCE = 1e-4


class CalibrationConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What is asked of a calibrated classifier's answers."""

    coverage: float = Field(0.9, gt=0, lt=1)
    """Share of the label sets, which `predict_set` gives, that should hold the true label. See `app.conformal`."""


def check_examples(label_ids: npt.ArrayLike, columns: npt.ArrayLike, what: str) -> tuple[IntArray, FloatArray]:
    """int[n] and float[n, c] as arrays; RequestError when they do not fit each other or are not finite.

    `what` names the columns in the message: "probabilities" or "logits".
    """
    ids: npt.NDArray[Any] = np.asarray(label_ids)
    values = np.asarray(columns, dtype=np.float64)
    if ids.ndim != 1 or values.ndim != 2 or len(ids) != len(values):
        raise RequestError(f"label_ids [n] and {what} [n, classes] do not fit: {ids.shape} and {values.shape}")
    if not len(ids) or values.shape[1] < 2:
        raise RequestError(f"{what} of shape {values.shape}: at least 1 example and 2 classes are needed")
    if not np.issubdtype(ids.dtype, np.integer):
        raise RequestError(f"label_ids are {ids.dtype}, not integers")
    outside = np.flatnonzero((ids < 0) | (ids >= values.shape[1]))
    if len(outside):
        row = outside[0]
        raise RequestError(f"label_ids, row {row}: {ids[row]} is not in 0 to {values.shape[1] - 1}")
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise RequestError(f"{what}, row {broken[0]}: {values[broken[0]]} is not finite")
    return ids.astype(np.int64), values


def check_probabilities(label_ids: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """As `check_examples`, and every row is a distribution: within 0 and 1, summing to 1."""
    ids, values = check_examples(label_ids, probabilities, "probabilities")
    negative = (values < 0).any(axis=1) | (values > 1 + SUM_TOLERANCE).any(axis=1)
    wrong = np.flatnonzero(negative | (np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE))
    if len(wrong):
        row = wrong[0]
        raise RequestError(
            f"probabilities, row {row}: {values[row]} sums to {values[row].sum():.6g}; "
            "a row holds values from 0 to 1 that sum to 1"
        )
    return ids, values


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> FloatArray:
    """Logits float[n, c] -> probabilities float64[n, c]; a temperature above 1 makes them less confident."""
    if not temperature > 0:
        raise RequestError(f"temperature {temperature} is not above 0")
    probabilities: FloatArray = special.softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    return probabilities


def negative_log_likelihood(logits: FloatArray, label_ids: IntArray, temperature: float) -> float:
    """Mean -log p(label) in nats of float[n, c] logits divided by the temperature."""
    log_probabilities = special.log_softmax(logits / temperature, axis=1)
    return float(-log_probabilities[np.arange(len(label_ids)), label_ids].mean())


def fit_temperature(logits: npt.ArrayLike, label_ids: npt.ArrayLike) -> float:
    """The temperature at which logits float[n, c] give validation labels int[n] the highest likelihood.

    One number for all classes, so no predicted label changes. Lies within `TEMPERATURES`; 1.0 where no
    temperature is better than that. RequestError for logits and labels that do not fit or are not finite.
    Source: Guo et al., 2017, "On calibration of modern neural networks". The targets are Platt's, 1999: a label
    seen on n examples is believed with (n + 1) / (n + 2), or a small split without an error would call for
    certainty. On thousands of examples this changes nothing that can be seen.
    """
    ids, values = check_examples(label_ids, logits, "logits")
    doubt = 1 / (len(ids) + 2)
    targets = np.full(values.shape, doubt / (values.shape[1] - 1))
    targets[np.arange(len(ids)), ids] = 1 - doubt

    def loss(log_temperature: float) -> float:
        log_probabilities = special.log_softmax(values / np.exp(log_temperature), axis=1)
        return float(-(targets * log_probabilities).sum(axis=1).mean())

    # The loss is convex in 1/T, so it has one valley in log T and a bounded search finds it.
    found = optimize.minimize_scalar(
        loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def bin_ids(confidence: FloatArray, bins: int = BINS) -> IntArray:
    """The equal-width bin of each confidence, float[n] -> int[n]: bin k is (k / bins, (k + 1) / bins]."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


@dataclass(frozen=True, eq=False)
class Reliability:
    """One entry a bin, all float64[bins]: its edges, its examples, their mean confidence and accuracy.

    Confidence and accuracy of an empty bin are NaN.
    """

    low: FloatArray
    high: FloatArray
    count: FloatArray
    confidence: FloatArray
    accuracy: FloatArray

    @property
    def expected_calibration_error(self) -> float:
        """The mean over examples of the gap between their bin's confidence and accuracy: 0 best, 1 worst."""
        filled = self.count > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float(np.sum(gaps * self.count[filled]) / self.count.sum())


def reliability(label_ids: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS) -> Reliability:
    """Confidence (probability of the predicted class) against accuracy, by equal-width bins of confidence.

    Source: Niculescu-Mizil & Caruana, 2005, "Predicting good probabilities with supervised learning".
    """
    ids, values = check_probabilities(label_ids, probabilities)
    confidence = values.max(axis=1)
    correct = values.argmax(axis=1) == ids
    bin_of = bin_ids(confidence, bins)
    count = np.bincount(bin_of, minlength=bins).astype(np.float64)
    divisor = np.where(count > 0, count, np.nan)
    edges = np.arange(bins + 1) / bins
    return Reliability(
        low=edges[:-1],
        high=edges[1:],
        count=count,
        confidence=np.bincount(bin_of, weights=confidence, minlength=bins) / divisor,
        accuracy=np.bincount(bin_of, weights=correct, minlength=bins) / divisor,
    )


def expected_calibration_error(label_ids: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS) -> float:
    """How far confidence and accuracy are apart on average: 0 best, 1 worst.

    Equal-width bins of the top class's probability, weighted by the examples in them.
    Source: Naeini et al., 2015, "Obtaining well calibrated probabilities using Bayesian binning".
    """
    return reliability(label_ids, probabilities, bins).expected_calibration_error


def calibration_error_by_chance(probabilities: npt.ArrayLike, *, draws: int = 200, seed: int = 0) -> FloatArray:
    """Calibration errors, float64[draws], that probabilities float[n, c] show although they are exactly right.

    Each draw decides anew, by the probability of the predicted class, which of the n answers are right. On few examples
    this alone is far from 0. Source: Bröcker & Smith, 2007, "Increasing the reliability of reliability diagrams".
    """
    confidence = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    bins = bin_ids(confidence)
    right = np.random.default_rng(seed).random((draws, len(confidence))) < confidence
    gaps = np.stack([np.bincount(bins, weights=draw - confidence, minlength=BINS) for draw in right])
    errors: FloatArray = np.abs(gaps).sum(axis=1) / len(confidence)
    return errors
