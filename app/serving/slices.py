"""A request of many texts, run a few at a time: bounded memory, and no short text is padded to a long one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from app.serving.session import Run
from app.serving.signatures import Signature

SLICE_ROWS = 64
# Rows times the longest of them. A Transformer's attention over 1,024 tokens takes some 50 MB a text.
SLICE_BYTES = 64 * 1024
CLASSIFIER_INPUT = "text"
CLASSIFIER_OUTPUTS = frozenset({"label", "confidence", "probabilities", "classes"})


def is_classifier(signature: Signature) -> bool:
    """Whether a signature is one of Valence's own classifiers, whose answers do not depend on batch-mates."""
    text = signature.inputs.get(CLASSIFIER_INPUT)
    return (
        len(signature.inputs) == 1
        and text is not None
        and (text.dtype, text.shape) == ("DT_STRING", (-1,))
        and signature.outputs.keys() >= CLASSIFIER_OUTPUTS
    )


def in_slices(run: Run) -> Run:
    """Return the same function of `text` string[rows], run on slices of neighbours in length."""

    def run_in_slices(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        texts = inputs[CLASSIFIER_INPUT]
        if len(texts) <= 1:
            return run(inputs)
        parts = list(slices([len(text) for text in texts.tolist()]))
        if len(parts) == 1:
            return run(inputs)
        answers = [run({CLASSIFIER_INPUT: texts[rows]}) for rows in parts]
        back = np.argsort(np.concatenate(parts))
        return {name: np.concatenate([answer[name] for answer in answers])[back] for name in answers[0]}

    return run_in_slices


def slices(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The row numbers, shortest first: at most `SLICE_ROWS` rows and `SLICE_BYTES` padded bytes a slice, or one row."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and (len(rows) == SLICE_ROWS or (len(rows) + 1) * lengths[row] > SLICE_BYTES):
            yield rows
            rows = []
        rows.append(row)
    yield rows
