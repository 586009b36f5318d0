"""Which labels are probably wrong: confident learning, from probabilities of models that never saw the row's label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from app.analysis.aligned import check_aligned
from app.analysis.bag_of_words import held_out_probabilities
from app.answers import Answers, FloatArray, IntArray
from app.calibration import check_probabilities
from app.errors import RequestError
from app.statistics import RESAMPLES, Interval, bootstrap, percentile_interval

FOLDS = 5
NOWHERE = -1


@dataclass(frozen=True)
class Suspect:
    """A text whose label is probably wrong.

    row: its position. suggested: the label that the probabilities point to. margin: probability of the given label
    less that of the likeliest other one; the lower, the surer.
    """

    row: int
    text: str
    label: str
    suggested: str
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Suspects:
    """The suspects among `total` texts, surest first, and how many labels are wrong in all, with its interval.

    joint int64[c, c]: texts by given label (row) and the label they confidently belong to (column). Texts that belong
    to none confidently are not in it.
    """

    label_names: tuple[str, ...]
    total: int
    rows: tuple[Suspect, ...]
    joint: IntArray
    estimated_errors: Interval

    def to_dict(self, limit: int | None = None) -> dict[str, Any]:
        """JSON-able; `limit` keeps the first suspects only."""
        return {
            "label_names": list(self.label_names),
            "total": self.total,
            "suspects": len(self.rows),
            "estimated_errors": self.estimated_errors.to_dict(),
            "joint": self.joint.tolist(),
            "rows": [row.to_dict() for row in self.rows[:limit]],
        }


def suspects(
    texts: Sequence[str],
    label_ids: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    label_names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Suspects:
    """Labels int[n] that out-of-sample probabilities float[n, c] speak against, surest first.

    Probabilities of a model that was trained on the row would hide its error: see `out_of_sample_probabilities`.
    RequestError where the arguments do not fit. Source: Northcutt, Jiang & Chuang, 2021, "Confident learning:
    estimating uncertainty in dataset labels": a text belongs to a class confidently when its probability reaches the
    mean over the texts with that label; those that belong to another class than their label are the suspects,
    ranked by normalised margin.
    """
    ids, values = check_probabilities(label_ids, probabilities)
    names = tuple(label_names)
    if len(texts) != len(ids) or len(names) != values.shape[1]:
        raise RequestError(f"{len(texts)} texts and {len(names)} label names for probabilities {values.shape}")
    confident = confident_class(ids, values)
    margins = margin(ids, values)
    found = np.flatnonzero((confident != NOWHERE) & (confident != ids))
    rows = tuple(
        Suspect(int(row), texts[row], names[ids[row]], names[confident[row]], float(margins[row]))
        for row in found[np.argsort(margins[found], kind="stable")]
    )
    errors = _estimated_errors(ids, confident, len(names), resamples, seed)
    return Suspects(names, len(ids), rows, confident_joint(ids, confident, len(names)), errors)


def confident_class(label_ids: IntArray, probabilities: FloatArray) -> IntArray:
    """The class each text belongs to confidently, int64[n]; `NOWHERE` where no probability reaches its threshold.

    A class's threshold is the mean probability of it over the texts that are labelled so. Of several classes that are
    reached the likeliest counts; a class without texts is never reached.
    """
    classes = probabilities.shape[1]
    of_label = probabilities[np.arange(len(label_ids)), label_ids]
    counts = np.bincount(label_ids, minlength=classes)
    sums = np.bincount(label_ids, weights=of_label, minlength=classes)
    thresholds = np.divide(sums, counts, out=np.full(classes, np.inf), where=counts > 0)
    # A mean of equal values can come out a rounding error above all of them.
    reached = np.where(probabilities >= thresholds - 1e-12, probabilities, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), NOWHERE)


def margin(label_ids: IntArray, probabilities: FloatArray) -> FloatArray:
    """Probability of the given label less that of the likeliest other one, float64[n], -1 to 1."""
    rows = np.arange(len(label_ids))
    others = probabilities.copy()
    others[rows, label_ids] = -1.0
    result: FloatArray = probabilities[rows, label_ids] - others.max(axis=1)
    return result


def confident_joint(label_ids: IntArray, confident: IntArray, classes: int) -> IntArray:
    """Texts by given label and confident class: int64[c, c]."""
    known = confident != NOWHERE
    cells = label_ids[known] * classes + confident[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _estimated_errors(ids: IntArray, confident: IntArray, classes: int, resamples: int, seed: int) -> Interval:
    """How many labels are wrong: each label's share off the diagonal of the joint, of all its texts.

    The interval is over the texts drawn; thresholds and probabilities are taken as they are. A label none of whose
    texts belongs anywhere confidently counts as without errors.
    """
    known, wrong = confident != NOWHERE, (confident != NOWHERE) & (confident != ids)
    of_label = np.eye(classes)[ids]

    def errors(weights: FloatArray) -> FloatArray:
        given = weights @ of_label
        sure, off = weights @ (of_label * known[:, None]), weights @ (of_label * wrong[:, None])
        return (given * np.divide(off, sure, out=np.zeros_like(off), where=sure > 0)).sum(axis=1)

    value = float(errors(np.ones((1, len(ids))))[0])
    return percentile_interval(value, bootstrap(errors, len(ids), resamples=resamples, seed=seed))


def out_of_sample_probabilities(
    texts: Sequence[str],
    label_ids: npt.ArrayLike,
    num_classes: int,
    *,
    groups: Sequence[str] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> FloatArray:
    """Probabilities float64[n, c] of a bag of words that was trained on the other folds, for training texts.

    With groups (films, authors) a whole group is in one fold, so that a text is not judged by its siblings. A class
    with fewer texts than folds makes for as many folds as it has texts, and so do few groups; RequestError for a class
    with a single text, or a single group.
    """
    ids = np.asarray(label_ids, dtype=np.int64)
    counts = np.bincount(ids, minlength=num_classes)
    rare = int(np.where(counts > 0, counts, len(ids)).argmin())
    if counts[rare] < 2:
        raise RequestError(f"label id {rare} has {counts[rare]} texts: at least 2 are needed")
    num_groups = len(ids) if groups is None else len(set(groups))
    if num_groups < 2:
        raise RequestError("all texts are in one group: at least 2 are needed")
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(min(folds, int(counts[rare]), num_groups), shuffle=True, random_state=seed)
    return held_out_probabilities(texts, ids, num_classes, splitter.split(np.zeros(len(ids)), ids, groups))


def average_probabilities(answers: Sequence[Answers]) -> FloatArray:
    """The mean of several models' calibrated probabilities, float64[n, c]: for texts that none was trained on."""
    check_aligned(answers)
    result: FloatArray = np.mean([one.probabilities for one in answers], axis=0)
    return result
