"""How much an encoder and the n-grams beside it count: decided on the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from app.calibration import check_examples

LARGEST = 20.0  # as the inverse of the lowest temperature: beyond stands a lack of texts, not a better fit


def fit_logit_weights(logits: Sequence[np.ndarray], label_ids: np.ndarray) -> np.ndarray:
    """Return the weights >= 0, float64[models], of the sum of logits with the lowest log loss.

    `logits` holds float[n, classes] for each model, `label_ids` int[n] the labels of validation. The loss is convex in
    the weights, so the minimum is the only one. As for the temperature (`app.calibration`) a label seen on n examples
    is believed with (n + 1) / (n + 2), or a validation split without an error would call for weights without end.
    Equal weights where no sum says more than that all classes are equally likely. Source: Wolpert, 1992, "Stacked
    generalization", with weights that are the same for all classes: two numbers are chosen by validation and no more.
    """
    ids, *_ = check_examples(label_ids, logits[0], "logits")
    stacked = np.stack([np.asarray(one, dtype=np.float64) for one in logits])
    doubt = 1 / (len(ids) + 2)
    targets = np.full(stacked.shape[1:], doubt / (stacked.shape[2] - 1))
    targets[np.arange(len(ids)), ids] = 1 - doubt

    def loss(weights: np.ndarray) -> float:
        log_probabilities = special.log_softmax(np.tensordot(weights, stacked, axes=1), axis=1)
        return float(-(targets * log_probabilities).sum(axis=1).mean())

    equal = np.full(len(stacked), 1 / len(stacked))
    found = optimize.minimize(loss, equal, method="L-BFGS-B", bounds=[(0.0, LARGEST)] * len(stacked))
    return np.asarray(found.x) if found.x.any() else equal
