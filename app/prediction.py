"""Texts in, answers out: what `valence predict` asks of a classifier, wherever that one runs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol, TypedDict, cast

import numpy as np

from app.errors import RequestError
from app.serving.predictions import Predictions

READ_BYTES = 64 * 1024


class Classifier(Protocol):
    """Something that labels texts: `app.serving.predictor.Predictor`, `app.remote.RemoteClassifier`."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the columns of `probabilities`, in order."""

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> Predictions:
        """Classify the texts, at most `batch_size` at a time; None leaves the number to the classifier.

        The empty text has an answer too.
        """


class Answer(TypedDict):
    """One text's label, the probability of that label, and the probabilities of all labels by name."""

    text: str
    label: str
    confidence: float
    probabilities: dict[str, float]


def predict_texts(classifier: Classifier, texts: Sequence[str], batch_size: int | None = None) -> list[Answer]:
    """Answer each text, in order."""
    predictions = classifier.predict(texts, batch_size)
    columns = (
        texts,
        predictions.labels,
        _shortest(predictions.confidence),
        _shortest(predictions.probabilities),
    )
    return [
        Answer(
            text=text,
            label=label,
            confidence=confidence,
            probabilities=dict(zip(predictions.label_names, probabilities, strict=True)),
        )
        for text, label, confidence, probabilities in zip(*columns, strict=True)
    ]


def predict_stream(classifier: Classifier, stream: BinaryIO, batch_size: int | None = None) -> Iterator[Answer]:
    """Answer each line of a stream such as `sys.stdin.buffer` as soon as it has come."""
    for texts in read_texts(stream):
        yield from predict_texts(classifier, texts, batch_size)


def read_texts(stream: BinaryIO) -> Iterator[list[str]]:
    r"""Yield one text for each line, empty ones included, in lists of what had come by then.

    Only the line's end is taken off, `\n` or `\r\n`, and a byte order mark at the start. Raises
    `RequestError` naming the line that is not UTF-8.
    """
    number = 0
    for lines in _whole_lines(stream):
        texts = [_decode(line, number + i) for i, line in enumerate(lines, start=1)]
        number += len(texts)
        yield texts


def _whole_lines(stream: BinaryIO) -> Iterator[list[bytes]]:
    # read1 waits only while nothing is there. Filling a batch would hold back the answers to what was typed,
    # or came through a pipe, until many more lines follow. (The type of sys.stdin.buffer leaves read1 out.)
    read = cast(io.BufferedIOBase, stream).read1
    begun: list[bytes] = []  # pieces of a line whose end has not come
    while piece := read(READ_BYTES):
        begun.append(piece)
        if b"\n" in piece:
            *lines, rest = b"".join(begun).split(b"\n")
            begun = [rest]
            yield lines
    if last := b"".join(begun):
        yield [last]


def _decode(line: bytes, number: int) -> str:
    try:
        return line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise RequestError(f"standard input, line {number}: not UTF-8 (byte 0x{byte:02x})") from error


def _shortest(values: np.ndarray) -> Any:
    """Return float32[...] as nested lists of Python floats, 0.93 instead of 0.9300000071525574."""
    return values.astype(np.float32).astype(str).astype(float).tolist()
