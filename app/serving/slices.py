"""A request of many texts, run a few at a time: bounded memory, and no short text is padded to a long one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from app.serving.reading import Reading, roughly_pieces
from app.serving.session import Run
from app.serving.signatures import Signature
from app.serving.status import Code, ServingError, invalid

# An LSTM's operation packs its weights anew at every step, whatever the number of rows: 64 at a time took a quarter
# longer, 256 were no faster (docs/log.md).
SLICE_ROWS = 128
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


def in_slices(run: Run, reading: Reading, timeout_ms: int = 0, max_rows: int | None = None) -> Run:
    """Return the same function of `text` string[rows], run on slices of neighbours in length, as `reading` lets.

    It raises `ServingError`: DEADLINE_EXCEEDED where all slices together take longer than `timeout_ms` (0: no limit),
    and for more rows than `max_rows`, the batch scheduler's limit, the scheduler's own error.
    """

    def run_in_slices(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        texts = inputs[CLASSIFIER_INPUT]
        if max_rows is not None and len(texts) > max_rows:
            raise invalid(f"Task size {len(texts)} is larger than maximum input batch size {max_rows}")
        if len(texts) <= 1:
            return run(inputs)
        parts = list(slices([roughly_pieces(text) for text in texts.tolist()], reading))
        if len(parts) == 1:
            return run(inputs)
        due = time.monotonic() + timeout_ms / 1000
        answers = []
        for rows in parts:
            if timeout_ms and time.monotonic() > due:
                raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
            answers.append(run({CLASSIFIER_INPUT: texts[rows]}))
        back = np.argsort(np.concatenate(parts))
        return {name: np.concatenate([answer[name] for answer in answers])[back] for name in answers[0]}

    return run_in_slices


def slices(pieces: Sequence[int], reading: Reading) -> Iterator[list[int]]:
    """The row numbers, shortest first, given the pieces of each text: not more than fit at once, or one alone."""
    rows: list[int] = []
    for row in sorted(range(len(pieces)), key=pieces.__getitem__):
        if rows and (len(rows) == SLICE_ROWS or (len(rows) + 1) * reading.share(pieces[row]) > 1):
            yield rows
            rows = []
        rows.append(row)
    yield rows
