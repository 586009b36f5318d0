"""What a signature answers to the golden texts if it answers as Keras was evaluated, and what rounding may change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.serving.calibration import SETS_SIGNATURE
from app.serving.golden import Golden, encoded
from app.serving.signatures import DEFAULT_SIGNATURE

# Between two probabilities. Of other numbers: relative to the expected one where that is larger than 1.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Expectation:
    """The outputs of one signature by name, and for some the texts, bool[n], whose answer rounding may decide."""

    outputs: dict[str, np.ndarray]
    free: dict[str, np.ndarray]


def expectations(golden: Golden) -> dict[str, Expectation]:
    """What is known of each signature's answers, by its name; the sets only where the golden answers have them."""
    known = {DEFAULT_SIGNATURE: Expectation(_labels(golden), {"label": _near_ties(golden)})}
    if golden.in_set is not None and golden.threshold is not None:
        known[SETS_SIGNATURE] = _with_sets(known[DEFAULT_SIGNATURE], golden, golden.in_set, golden.threshold)
    return known


def _labels(golden: Golden) -> dict[str, np.ndarray]:
    return {
        "probabilities": golden.probabilities,
        "confidence": golden.probabilities.max(axis=1),
        "label": encoded(golden.labels),
        "classes": np.tile(encoded(golden.label_names), (len(golden.texts), 1)),
    }


def _with_sets(labels: Expectation, golden: Golden, in_set: np.ndarray, threshold: float) -> Expectation:
    size = in_set.sum(axis=1, dtype=np.int32)
    members = {"in_set": in_set, "set_size": size, "abstain": size != 1, "label_set": _label_sets(golden, in_set)}
    # A label so near to the threshold is in the set on one device and out of it on another; which label is likeliest
    # decides too, for that one always is.
    at_threshold = (np.abs(golden.probabilities - threshold) <= TOLERANCE).any(axis=1) | labels.free["label"]
    free = dict.fromkeys(("in_set", "set_size", "abstain"), at_threshold)
    free["label_set"] = at_threshold | _near(np.where(in_set, golden.probabilities, np.nan)).any(axis=1)
    return Expectation({**labels.outputs, **members}, {**labels.free, **free})


def _label_sets(golden: Golden, in_set: np.ndarray) -> np.ndarray:
    """Bytes [texts, label names]: the labels of each set, likeliest first, then empty strings."""
    order = np.argsort(-golden.probabilities, axis=1, kind="stable")
    names = encoded(golden.label_names)[order]
    return np.where(np.take_along_axis(in_set, order, axis=1), names, b"")


def _near_ties(golden: Golden) -> np.ndarray:
    """bool[texts]: where the two best labels are so close that rounding may decide either way."""
    return np.asarray(_near(golden.probabilities)[:, -1:].any(axis=1))


def _near(probabilities: np.ndarray) -> np.ndarray:
    """bool[texts, labels - 1]: whether each one, in rising order, is as good as equal to the next; NaN never is."""
    return np.asarray(np.diff(np.sort(probabilities, axis=1), axis=1) <= 2 * TOLERANCE)
