"""Texts to labels with an exported classifier, which carries its tokenizer, temperature and label names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np

from app.errors import RequestError
from app.serving.predictions import Predictions
from app.serving.reading import roughly_pieces
from app.serving.servable import Servable
from app.serving.signatures import DEFAULT_SIGNATURE, Signature
from app.serving.slices import SLICE_ROWS

INPUT = "text"
OUTPUTS = ("label", "confidence", "probabilities", "classes")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# An LSTM's step is too small to be shared between cores: one batch alone leaves a part of them idle.
BATCHES_AT_A_TIME = min(4, 1 + CORES)  # not more: each takes the memory of a batch


class Predictor:
    """A classifier loaded from a SavedModel version folder.

    Raises `RequestError` when the folder holds no SavedModel, or one whose `serving_default` is not
    `text` string[n] -> `label`, `confidence`, `probabilities`, `classes`.
    """

    def __init__(self, version_folder: Path) -> None:
        self.servable = Servable(Path(version_folder))
        _require_classifier(self.servable)

    @property
    def version(self) -> int:
        """The folder's name where it is an integer, else 0."""
        return self.servable.version

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """Every signature the SavedModel declares, by name."""
        return self.servable.signatures

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The names of the columns of `probabilities`, in order."""
        # A graph of zero rows answers zero rows of names: it takes one text to read them.
        classes = self._run([b""])["classes"][0]
        return tuple(name.decode() for name in classes)

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> Predictions:
        """Classify the texts in batches, of which several are worked on at the same time.

        A batch holds at most `batch_size` texts, and never more than `SLICE_ROWS`. Where its texts are long, the
        servable makes several runs of it (`app.serving.reading`).
        """
        if batch_size is not None and batch_size < 1:
            raise RequestError(f"batch_size is {batch_size}: allowed are whole numbers from 1")
        probabilities = np.empty((len(texts), len(self.label_names)), np.float32)
        confidence = np.empty(len(texts), np.float32)
        labels = [""] * len(texts)
        # Half of a surrogate pair has no UTF-8 form; a text with one gets an answer all the same.
        encoded = [text.encode(errors="replace") for text in texts]
        # Texts of one batch are padded to the one of most pieces, so texts of about as many share a batch.
        order = sorted(range(len(texts)), key=lambda row: roughly_pieces(encoded[row]))
        size = min(batch_size or SLICE_ROWS, SLICE_ROWS)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        with ThreadPoolExecutor(BATCHES_AT_A_TIME) as pool:
            run = pool.map if len(batches) > 1 else map  # one batch need not wait for a thread to start
            answers = run(lambda rows: self._run([encoded[row] for row in rows]), batches)
            for rows, answer in zip(batches, answers, strict=True):
                probabilities[rows], confidence[rows] = answer["probabilities"], answer["confidence"]
                for row, label in zip(rows, answer["label"], strict=True):
                    labels[row] = label.decode()
        return Predictions(labels, confidence, probabilities, self.label_names)

    def _run(self, texts: Sequence[bytes]) -> dict[str, np.ndarray]:
        return self.servable.run(DEFAULT_SIGNATURE, {INPUT: np.array(texts, dtype=object)})


def _require_classifier(servable: Servable) -> None:
    signature = servable.signatures.get(DEFAULT_SIGNATURE)
    if signature is None:
        raise RequestError(
            f"{servable.path} has no signature '{DEFAULT_SIGNATURE}'; it has {sorted(servable.signatures)}"
        )
    missing = [name for name in OUTPUTS if name not in signature.outputs]
    if set(signature.inputs) != {INPUT} or missing:
        raise RequestError(
            f"{servable.path} is no exported classifier: '{DEFAULT_SIGNATURE}' takes"
            f" {sorted(signature.inputs)} and gives {sorted(signature.outputs)};"
            f" expected ['{INPUT}'] and {sorted(OUTPUTS)}"
        )
