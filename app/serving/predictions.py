"""What a classifier answers, wherever it runs; apart from `Predictor`, which takes TensorFlow to import."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """Answers in the order of the texts: a label, its probability, and the probabilities of all labels."""

    labels: list[str]
    confidence: np.ndarray  # float32[texts]
    probabilities: np.ndarray  # float32[texts, labels]
    label_names: tuple[str, ...]
