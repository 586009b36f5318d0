"""Two linear peers with scikit-learn: TF-IDF, and log-count ratios, each with logistic regression.

Words and pairs of words, or for texts that are written without spaces between words, such as Chinese, one to three
characters. The strength C of the penalty is the one of a small grid that is right most often on validation, of equals
the one with the lower log loss.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

WORDS = {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b|[!?]"}
CHARACTERS = {"analyzer": "char", "ngram_range": (1, 3)}
CHARACTERS_BETWEEN_SPACES = 20  # more than that in the middle text, and it is no script with spaces between words
SETTINGS: dict[str, dict[str, Any]] = {
    "tfidf": {"words": WORDS, "characters": CHARACTERS, "min_df": 2, "grid": [0.3, 1, 3, 10, 30, 100]},
    "nblr": {"words": WORDS, "characters": CHARACTERS, "min_df": 2, "grid": [0.01, 0.03, 0.1, 0.3, 1, 3]},
}

Part = tuple[Sequence[str], np.ndarray]
"""Texts, and their label ids int[n]."""


@dataclass(frozen=True, eq=False)
class LinearAnswer:
    """Probabilities float[n, c] on test, and what they cost."""

    probabilities: np.ndarray
    cpu_seconds: float
    parameters: int
    details: dict[str, Any]


class Classifier(Protocol):
    """A classifier of sparse rows."""

    def fit(self, features: Any, label_ids: np.ndarray) -> Any:
        """Learn."""

    def probabilities(self, features: Any) -> np.ndarray:
        """Return float[n, c]."""

    @property
    def parameters(self) -> int:
        """Learned numbers."""


def train(kind: str, training: Part, validation: Part, test: Part, *, refit: bool = False) -> LinearAnswer:
    """Choose C on validation, learn from training (with `refit` from both), answer on test."""
    started = time.process_time()
    settings = SETTINGS[kind]
    n_grams = n_grams_of(training[0])
    vectorizer, features = vectorize(kind, n_grams, training[0])
    on_validation = vectorizer.transform(validation[0])
    tried = {}
    for strength in settings["grid"]:
        classifier = make_classifier(kind, strength).fit(features, training[1])
        tried[strength] = _accuracy_and_log_loss(validation[1], classifier.probabilities(on_validation))
    chosen = max(tried, key=lambda strength: (tried[strength][0], -tried[strength][1]))
    texts, label_ids = training
    if refit:
        texts, label_ids = [*texts, *validation[0]], np.concatenate([label_ids, validation[1]])
        vectorizer, features = vectorize(kind, n_grams, texts)
    classifier = make_classifier(kind, chosen).fit(features, label_ids)
    cpu_seconds = time.process_time() - started
    details = {
        "analyzer": n_grams["analyzer"],
        "features": features.shape[1],
        "C": chosen,
        "validation_accuracy": {str(strength): found[0] for strength, found in tried.items()},
    }
    probabilities = classifier.probabilities(vectorizer.transform(test[0]))
    return LinearAnswer(probabilities, cpu_seconds, classifier.parameters, details)


def n_grams_of(texts: Sequence[str]) -> dict[str, Any]:
    """Words for scripts with spaces between them, characters for others."""
    between = np.median([len(text) / max(1, len(text.split())) for text in texts])
    return CHARACTERS if between > CHARACTERS_BETWEEN_SPACES else WORDS


def vectorize(kind: str, n_grams: dict[str, Any], texts: Sequence[str]) -> tuple[Any, Any]:
    """Learn the n-grams of the texts; return the vectorizer and the texts as sparse rows."""
    options = {**n_grams, "min_df": SETTINGS[kind]["min_df"], "dtype": np.float64}
    vectorizer = (
        TfidfVectorizer(sublinear_tf=True, **options) if kind == "tfidf" else CountVectorizer(binary=True, **options)
    )
    return vectorizer, vectorizer.fit_transform(texts)


def make_classifier(kind: str, strength: float) -> Classifier:
    """An untrained classifier."""
    return Softmax(strength) if kind == "tfidf" else LogCountRatios(strength)


class Softmax:
    """Multinomial logistic regression."""

    def __init__(self, strength: float) -> None:
        self._regression = LogisticRegression(C=strength, max_iter=1_000)

    def fit(self, features: Any, label_ids: np.ndarray) -> Softmax:
        """Learn with L-BFGS."""
        with threadpool_limits(1):  # more threads wait for each other: sparse rows give them too little to do
            self._regression.fit(features, label_ids)
        return self

    def probabilities(self, features: Any) -> np.ndarray:
        """Return float[n, c]."""
        return self._regression.predict_proba(features)

    @property
    def parameters(self) -> int:
        """Weights and intercepts."""
        return int(self._regression.coef_.size + self._regression.intercept_.size)


class LogCountRatios:
    """Logistic regression on n-grams that are there or not, each weighed by its log-count ratio.

    One class against the rest, with ratios of its own, where there are more than two; their probabilities are then
    divided by their sum. Source: Wang & Manning, 2012, "Baselines and bigrams: simple, good sentiment and topic
    classification".
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._members: list[tuple[Any, LogisticRegression]] = []

    def fit(self, features: Any, label_ids: np.ndarray) -> LogCountRatios:
        """Count, then learn the dual by coordinate descent, which is quick where columns are many."""
        classes = int(label_ids.max()) + 1
        for label_id in [1] if classes == 2 else range(classes):
            inside = label_ids == label_id
            ratios = sp.diags_array(self._ratios(features, inside)).tocsr()
            regression = LogisticRegression(
                C=self._strength, solver="liblinear", dual=True, max_iter=1_000, random_state=0
            )
            with warnings.catch_warnings():
                # The answers change no more long before liblinear is content.
                warnings.simplefilter("ignore", ConvergenceWarning)
                regression.fit(sp.csr_matrix(features @ ratios), inside)
            self._members.append((ratios, regression))
        return self

    @staticmethod
    def _ratios(features: Any, inside: np.ndarray) -> np.ndarray:
        within = 1 + np.asarray(features[inside].sum(axis=0)).ravel()
        beyond = 1 + np.asarray(features[~inside].sum(axis=0)).ravel()
        return np.log((within / within.sum()) / (beyond / beyond.sum()))

    def probabilities(self, features: Any) -> np.ndarray:
        """Return float[n, c]."""
        found = [
            regression.predict_proba(sp.csr_matrix(features @ ratios))[:, 1] for ratios, regression in self._members
        ]
        columns = np.column_stack([1 - found[0], found[0]] if len(found) == 1 else found)
        return columns / columns.sum(axis=1, keepdims=True)

    @property
    def parameters(self) -> int:
        """Weights and intercepts; the ratios are counted."""
        return sum(int(one.coef_.size + one.intercept_.size) for _, one in self._members)


def _accuracy_and_log_loss(label_ids: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    of_truth = probabilities[np.arange(len(label_ids)), label_ids]
    accuracy = (probabilities.argmax(axis=1) == label_ids).mean()
    return float(accuracy), float(-np.log(np.maximum(of_truth, 1e-12)).mean())
