"""What a model is worth when it may pass: error against the share of texts it answers, and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.analysis.proportions import proportion
from app.answers import Answers, FloatArray
from app.calibration import Reliability, reliability, softmax
from app.statistics import Interval

COVERAGES = (0.8, 0.9, 0.95, 1.0)
POINTS = 200
"""Points of the curve that `to_dict` keeps: more than a plot can show."""


@dataclass(frozen=True)
class AtCoverage:
    """The surest texts, `coverage` of all: the accuracy on them and the confidence of the least sure one."""

    coverage: float
    rows: int
    accuracy: Interval
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "coverage": self.coverage,
            "rows": self.rows,
            "accuracy": self.accuracy.to_dict(),
            "confidence": self.confidence,
        }


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Errors among the surest k of n texts, for every k: coverage k / n and risk, both float64[n].

    area: the mean of risk over k (AURC), 0 best; best_area: that of the same number of errors, all ranked last.
    """

    coverage: FloatArray
    risk: FloatArray
    area: float
    best_area: float
    at: tuple[AtCoverage, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with at most `POINTS` points of the curve, the last one among them."""
        count = len(self.risk)
        kept = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
        return {
            "coverage": self.coverage[kept].tolist(),
            "risk": self.risk[kept].tolist(),
            "area": self.area,
            "best_area": self.best_area,
            "at": [one.to_dict() for one in self.at],
        }


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence against accuracy before and after the temperature; where that is not known, only after it."""

    temperature: float | None
    before: Reliability | None
    after: Reliability

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; confidence and accuracy of an empty bin are None."""
        return {
            "temperature": self.temperature,
            "before": None if self.before is None else _bins(self.before),
            "after": _bins(self.after),
        }


def risk_coverage(answers: Answers) -> RiskCoverage:
    """The risk-coverage curve of one model by the calibrated probability of its answer.

    Texts of equal confidence cannot be told apart, so each counts with their common error rate, and their order does
    not matter. Source: Geifman & El-Yaniv, 2017, "Selective classification for deep neural networks"; the area:
    Geifman, Uziel & El-Yaniv, 2019, "Bias-reduced uncertainty estimation for deep neural classifiers".
    """
    confidence = answers.probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    count = len(ranked)
    errors = np.cumsum(_shared_within_ties(ranked, (~answers.correct[order]).astype(np.float64)))
    taken = np.arange(1, count + 1)
    risk = errors / taken
    wrong = int((~answers.correct).sum())
    best = np.maximum(0, taken - (count - wrong)) / taken
    at = tuple(_at(share, ranked, errors) for share in COVERAGES)
    return RiskCoverage(taken / count, risk, float(risk.mean()), float(best.mean()), at)


def _shared_within_ties(ranked: FloatArray, errors: FloatArray) -> FloatArray:
    """Each text's error replaced by the mean over the texts of equal confidence, float64[n]."""
    _, tie, sizes = np.unique(-ranked, return_inverse=True, return_counts=True)
    result: FloatArray = (np.bincount(tie, weights=errors) / sizes)[tie]
    return result


def _at(coverage: float, ranked: FloatArray, errors: FloatArray) -> AtCoverage:
    rows = max(1, round(coverage * len(ranked)))
    return AtCoverage(coverage, rows, proportion(rows - round(float(errors[rows - 1])), rows), float(ranked[rows - 1]))


def calibration(answers: Answers, *, knows_temperature: bool = True) -> Calibration:
    """Reliability of the logits as they are and divided by the temperature, by `app.calibration.reliability`.

    Without `knows_temperature` the logits are of after it already, and there is no "before".
    """
    after = reliability(answers.label_ids, answers.probabilities)
    if not knows_temperature:
        return Calibration(None, None, after)
    return Calibration(answers.temperature, reliability(answers.label_ids, softmax(answers.logits)), after)


def _bins(found: Reliability) -> dict[str, Any]:
    columns = {"confidence": found.confidence, "accuracy": found.accuracy}
    return {
        "expected_calibration_error": found.expected_calibration_error,
        "low": found.low.tolist(),
        "high": found.high.tolist(),
        "count": [int(count) for count in found.count],
        **{name: [None if np.isnan(value) else float(value) for value in bins] for name, bins in columns.items()},
    }
