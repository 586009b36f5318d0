"""Split-conformal classification: sets of labels that hold the true one as often as the user asks."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from app.calibration import FloatArray, check_examples, check_probabilities
from app.errors import RequestError

BoolArray = npt.NDArray[np.bool_]

SCORE = "lac"
"""The score behind every threshold, as `calibration.json` names it: one less the label's probability."""
LEVEL = 0.95
"""Of the interval around an observed coverage."""


def fit_threshold(label_ids: npt.ArrayLike, probabilities: npt.ArrayLike, coverage: float) -> float:
    """The least probability that puts a label into a text's set, 0 to 1, so that `coverage` of the sets are right.

    label_ids int[n] and calibrated probabilities float[n, c] are of validation: texts that training has not seen. The
    scores 1 - p(true label) are put in order, and the threshold is 1 less the ceil((n + 1) * coverage)-th of them. For
    a new text that is exchangeable with these n, the set holds the true label with a probability of at least
    `coverage`, over the draw of all n + 1 texts, and of at most `coverage` + 1 / (n + 1) where no scores are equal and
    no set had to be filled (see `prediction_sets`). With n below coverage / (1 - coverage) nothing can be promised of
    fewer labels than all: the threshold is 0.

    Source: Sadinle, Lei & Wasserman, 2019, "Least ambiguous set-valued classifiers with bounded error levels"; the
    rank in finite samples is Vovk's, as in Angelopoulos & Bates, 2023, "Conformal prediction: a gentle introduction".

    Raises:
        RequestError: a coverage that is not between 0 and 1, or labels and probabilities that do not fit.
    """
    if not 0 < coverage < 1:
        raise RequestError(f"coverage {coverage}: allowed is what lies between 0 and 1, both left out")
    ids, values = check_probabilities(label_ids, probabilities)
    # Rounded, for 0.55 * 100 is 55.00000000000001, whose ceiling is 56.
    rank = math.ceil(round((len(ids) + 1) * coverage, 9))
    if rank > len(ids):
        return 0.0
    return float(np.sort(values[np.arange(len(ids)), ids])[len(ids) - rank])


def prediction_sets(probabilities: npt.ArrayLike, threshold: float) -> BoolArray:
    """Which labels are in each text's set: float[n, c] -> bool[n, c], in the order of the columns.

    A set holds every label whose probability is at least `threshold`, and the likeliest label, the first of equals,
    in any case. So no set is empty, and what is predicted is always in it. The likeliest label can only add to the
    coverage: a classifier that is right more often than the coverage asked for gives one label for every text, and
    its sets are right as often as it is.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    likeliest = np.arange(values.shape[1]) == values.argmax(axis=1)[:, None]
    return np.asarray((values >= threshold) | likeliest)


def abstains(sets: npt.ArrayLike) -> BoolArray:
    """Whether the classifier does not commit itself: bool[n, c] -> bool[n], true unless the set holds one label."""
    return np.asarray(np.asarray(sets).sum(axis=1) != 1)


@dataclass(frozen=True, eq=False)
class CoverageReport:
    """How sets did on labelled texts. Shares are 0 to 1.

    coverage: share of the sets that hold the true label, with the exact 95% interval `coverage_low` to
    `coverage_high` (Clopper & Pearson, 1934), which is of these texts and takes the threshold as given.
    mean_set_size: labels a set. single_share: sets of one label, where the classifier does not abstain.
    single_accuracy: how many of those are right, NaN where there are none. class_coverage float64[c]: coverage among
    the texts of each label, NaN for a label without texts; only the coverage of all texts together is promised.
    """

    count: int
    coverage: float
    coverage_low: float
    coverage_high: float
    mean_set_size: float
    single_share: float
    single_accuracy: float
    class_coverage: FloatArray

    def to_dict(self) -> dict[str, Any]:
        """Return what a program would read, JSON-able; null for what is not defined."""
        numbers = {**dataclasses.asdict(self), "class_coverage": self.class_coverage.tolist()}
        return {name: _or_none(value) for name, value in numbers.items()}


def coverage_report(label_ids: npt.ArrayLike, sets: npt.ArrayLike) -> CoverageReport:
    """Hold sets bool[n, c] against the true labels int[n]. RequestError where they do not fit."""
    members = np.asarray(sets, dtype=np.bool_)
    ids, _ = check_examples(label_ids, members, "sets")
    covered = members[np.arange(len(ids)), ids]
    single = ~abstains(members)
    low, high = _clopper_pearson(int(covered.sum()), len(ids))
    of_class = np.bincount(ids, minlength=members.shape[1])
    covered_of_class = np.bincount(ids, weights=covered, minlength=members.shape[1])
    return CoverageReport(
        count=len(ids),
        coverage=float(covered.mean()),
        coverage_low=low,
        coverage_high=high,
        mean_set_size=float(members.sum(axis=1).mean()),
        single_share=float(single.mean()),
        single_accuracy=float(covered[single].mean()) if single.any() else math.nan,
        class_coverage=covered_of_class / np.where(of_class > 0, of_class, np.nan),
    )


def _clopper_pearson(successes: int, count: int) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low = special.betaincinv(successes, count - successes + 1, tail) if successes else 0.0
    high = special.betaincinv(successes + 1, count - successes, 1 - tail) if successes < count else 1.0
    return float(low), float(high)


def _or_none(value: Any) -> Any:
    if isinstance(value, list):
        return [_or_none(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
