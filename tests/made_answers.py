"""Answers made up for the tests of `app.analysis`: right exactly where they are told to be."""

from __future__ import annotations

import numpy as np

from app.answers import Answers

LABELS = ("good", "bad")


def made_answers(
    right,
    *,
    name="lstm",
    texts=None,
    label_ids=None,
    confidence=0.8,
    temperature=1.0,
    num_tokens=None,
    unknown_share=None,
    sequence_length=128,
    columns=None,
    label_names=LABELS,
):
    """A model that gives the true label where `right` says so, the next one elsewhere, with `confidence` (one or n)."""
    right = np.asarray(right, dtype=bool)
    count, classes = len(right), len(label_names)
    label_ids = np.arange(count) % classes if label_ids is None else np.asarray(label_ids)
    predicted = np.where(right, label_ids, (label_ids + 1) % classes)
    confidence = np.broadcast_to(np.asarray(confidence, dtype=np.float64), count)
    probabilities = np.repeat(((1 - confidence) / (classes - 1))[:, None], classes, axis=1)
    probabilities[np.arange(count), predicted] = confidence
    return Answers(
        name=name,
        label_names=label_names,
        texts=tuple(f"text number {row}" for row in range(count)) if texts is None else tuple(texts),
        label_ids=label_ids,
        logits=np.log(probabilities),
        temperature=temperature,
        num_tokens=np.full(count, 10) if num_tokens is None else np.asarray(num_tokens),
        unknown_share=np.zeros(count) if unknown_share is None else np.asarray(unknown_share),
        sequence_length=sequence_length,
        columns=columns or {},
    )
