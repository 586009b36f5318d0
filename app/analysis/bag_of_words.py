"""A classifier of words and pairs of words that trains in seconds: what labels can be told from the words alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from app.analysis.words import words
from app.answers import FloatArray, IntArray


def word_weights() -> TfidfVectorizer:
    """Unfitted: texts -> sparse float[n, words and pairs], TF-IDF of what at least two texts hold."""
    return TfidfVectorizer(analyzer=_words_and_pairs, sublinear_tf=True, min_df=2)


def word_classifier() -> OneVsRestClassifier:
    """Unfitted: word weights -> label ids, logistic regression of each class against the rest.

    By liblinear, which is made for sparse weights.
    """
    return OneVsRestClassifier(LogisticRegression(C=3, solver="liblinear"))


def held_out_probabilities(
    texts: Sequence[str], label_ids: IntArray, num_classes: int, folds: Iterable[tuple[IntArray, IntArray]]
) -> FloatArray:
    """Probabilities float64[n, c] of each text, by a classifier that was trained on the other folds' labels.

    folds: rows to learn from and rows held out, as scikit-learn's splitters give them. The weights of words come from
    all texts, which reveals no label and spares reading each text once a fold.
    """
    weights = word_weights().fit_transform(texts)
    probabilities = np.zeros((len(label_ids), num_classes))
    for learned, held_out in folds:
        known = np.unique(label_ids[learned])
        if len(known) == 1:  # a group held all the other classes
            probabilities[held_out, known[0]] = 1.0
            continue
        model = word_classifier().fit(weights[learned], label_ids[learned])
        # Not cross_val_predict: where a group holds a whole class, a fold's model does not know that class.
        probabilities[np.ix_(held_out, model.classes_)] = model.predict_proba(weights[held_out])
    return probabilities


def _words_and_pairs(text: str) -> list[str]:
    """Words and pairs, and one entry that every text has: without it texts that share no word have no features."""
    single = words(text)
    return ["", *single, *(f"{first} {second}" for first, second in pairwise(single))]
