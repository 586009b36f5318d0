"""The same questions over several roads: do Keras, the SavedModel, the C API and the servers answer alike?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.serving.array_text import Tensors
from app.serving.expectation import TOLERANCE, Expectation, expectations
from app.serving.golden import Golden
from app.serving.signatures import DEFAULT_SIGNATURE

KERAS, SAVED_MODEL, C_API, REST, GRPC = "Keras", "SavedModel", "C API", "REST", "gRPC"
TENSORFLOW_SERVING = "TensorFlow Serving"
HEADINGS = ("Road", "Signature", "Texts", "Labels equal", "Largest difference", "Allowed")


@dataclass(frozen=True)
class RoadRow:
    """A line of the table: one signature over one road.

    `labels_equal` counts the texts whose label is the expected one, or whatever else has to be equal to the letter:
    strings, whole numbers, truth values. It is None, as is `largest_difference`, on the road that others are held
    against and on one that gave no answer. `signature` is "" where that concerns all of them.
    """

    road: str
    signature: str
    texts: int
    labels_equal: int | None = None
    largest_difference: float | None = None
    allowed: float = TOLERANCE
    problems: list[str] = field(default_factory=list)

    @property
    def differing(self) -> int:
        """How many texts have another label; all of them where there was no answer."""
        return self.texts - (self.labels_equal or 0)

    def cells(self) -> tuple[str, ...]:
        """What stands below `HEADINGS`."""
        silent = "no answer" if self.problems else "reference"
        equal = silent if self.labels_equal is None else str(self.labels_equal)
        difference = "-" if self.largest_difference is None else f"{self.largest_difference:.1e}"
        return self.road, self.signature or "all", str(self.texts), equal, difference, f"{self.allowed:.0e}"


def table(rows: Sequence[RoadRow]) -> list[str]:
    """The rows below their headings, in columns: names to the left, numbers to the right."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(_aligned(line, widths)).rstrip() for line in lines]


def problems(rows: Sequence[RoadRow]) -> list[str]:
    """What is wrong on any road, each with the road's name."""
    return [f"{_place(row)}: {problem}" for row in rows for problem in row.problems]


def keras_row(golden: Golden) -> RoadRow:
    """The evaluated answers, which everything else is held against."""
    return RoadRow(KERAS, DEFAULT_SIGNATURE, len(golden.texts))


def failed(road: str, reason: str, texts: int, signature: str = "") -> RoadRow:
    """A road that gave no answer."""
    return RoadRow(road, signature, texts, problems=[reason])


def compare(road: str, answers: Tensors, golden: Golden, reference: Tensors | None = None) -> list[RoadRow]:
    """Hold one road's answers against the golden ones, and what other signatures answer against `reference`.

    Without `reference` the road is the reference. The rows come in the order of the answers.
    """
    known = expectations(golden)
    return [_row(road, name, answer, known.get(name), reference) for name, answer in answers.items()]


def _row(
    road: str, name: str, answer: Mapping[str, np.ndarray], known: Expectation | None, reference: Tensors | None
) -> RoadRow:
    if known is not None:
        held_against = "the evaluation's"
    elif reference is not None:
        known, held_against = Expectation(dict(reference[name]), {}), f"the {SAVED_MODEL}'s"
    else:
        return RoadRow(road, name, _rows(answer))
    rows = _rows(known.outputs)
    wrong_form = list(_wrong_forms(answer, known.outputs))
    if wrong_form:
        return RoadRow(road, name, rows, problems=wrong_form)
    return _judged(RoadRow(road, name, rows), answer, known, held_against)


def _judged(row: RoadRow, answer: Mapping[str, np.ndarray], known: Expectation, against: str) -> RoadRow:
    found: list[str] = []
    exact = np.ones(row.texts, bool)
    largest = 0.0
    for name, wanted in known.outputs.items():
        if _is_exact(wanted):
            same = _by_row(np.asarray(answer[name] == wanted), row.texts).all(axis=1)
            same = np.asarray(same | known.free.get(name, False))
            exact &= same
            found += _inexact(name, same, against)
        else:
            differences = _by_row(_differences(answer[name], wanted), row.texts).max(axis=1, initial=0)
            largest = max(largest, float(differences.max(initial=0)))
            found += _too_far(name, differences, against)
    difference = largest if np.isfinite(largest) else None
    return RoadRow(row.road, row.signature, row.texts, int(exact.sum()), difference, problems=found)


def _wrong_forms(answer: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name, wanted in expected.items():
        if name not in answer:
            yield f"the answer has no output {name!r}, only {sorted(answer)}"
        elif answer[name].shape != wanted.shape:
            yield f"{name!r} has the shape {answer[name].shape}, expected was {wanted.shape}"
        elif (answer[name].dtype == object) != (wanted.dtype == object):
            yield f"{name!r} has the dtype {answer[name].dtype}, expected was {wanted.dtype}"


def _is_exact(array: np.ndarray) -> bool:
    """Whether the array holds strings, whole numbers or truth values; bfloat16 is a kind of its own to NumPy."""
    return array.dtype.kind in "Oiub"


def _differences(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """float64, of the shape of both: how far apart, infinitely so where one of them is no number."""
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    found, expected = found.astype(wide), expected.astype(wide)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        differences = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    return np.where(same, 0, np.nan_to_num(differences, nan=np.inf, posinf=np.inf))


def _by_row(array: np.ndarray, rows: int) -> np.ndarray:
    """The array as [rows, anything]; an output without the batch dimension counts for every row."""
    if array.ndim and len(array) == rows:
        return array.reshape(rows, -1) if array.size else np.ones((rows, 0), array.dtype)
    return np.broadcast_to(np.asarray(array).reshape(1, -1), (rows, array.size))


def _rows(outputs: Mapping[str, np.ndarray]) -> int:
    return max((len(array) for array in outputs.values() if array.ndim), default=1)


def _inexact(name: str, same: np.ndarray, against: str) -> Iterator[str]:
    if not same.all():
        what = {"label": "labels", "classes": "rows of label names", "in_set": "sets"}.get(name, f"answers in {name!r}")
        yield f"{(~same).sum()} of {len(same)} {what} differ from {against}, the first at text {_first(~same)}"


def _too_far(name: str, differences: np.ndarray, against: str) -> Iterator[str]:
    far = differences > TOLERANCE
    if far.any():
        what = {"probabilities": "a probability", "confidence": "a confidence"}.get(name, f"a value of {name!r}")
        yield (
            f"{what} differs by {differences.max():.2g} from {against} (allowed: {TOLERANCE:g}),"
            f" most at text {_first(differences == differences.max())}; {far.sum()} of {len(far)} texts are too far off"
        )


def _first(where: np.ndarray) -> int:
    """The number of the first text, counted from 1."""
    return int(np.argmax(where)) + 1


def _place(row: RoadRow) -> str:
    return row.road if row.signature in ("", DEFAULT_SIGNATURE) else f"{row.road}, signature {row.signature!r}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        yield cell.ljust(width) if column < 2 else cell.rjust(width)
