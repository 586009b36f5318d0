"""How much an encoder and the n-grams beside it count: decided on the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize

from app.calibration import check_examples, negative_log_likelihood


def fit_shares(logits: Sequence[np.ndarray], label_ids: np.ndarray) -> np.ndarray:
    """Return the weights >= 0, float64[models], of the sum of logits with the lowest log loss.

    `logits` holds float[n, classes] for each model, `label_ids` int[n] the labels of validation. The loss is convex in
    the weights, so the minimum is the only one. Source: Wolpert, 1992, "Stacked generalization", with weights that
    are the same for all classes, so that two numbers are chosen by validation and no more.
    """
    ids, *_ = check_examples(label_ids, logits[0], "logits")
    stacked = np.stack([np.asarray(one, dtype=np.float64) for one in logits])

    def loss(shares: np.ndarray) -> float:
        return negative_log_likelihood(np.tensordot(shares, stacked, axes=1), ids, temperature=1.0)

    start = np.full(len(stacked), 1 / len(stacked))
    # 20 as for the temperature: beyond it stands a validation split without an error, not a better fit.
    found = optimize.minimize(loss, start, method="L-BFGS-B", bounds=[(0.0, 20.0)] * len(stacked))
    return np.asarray(found.x)
