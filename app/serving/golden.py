"""The golden answers inside an export: texts, and how the evaluated classifier answered them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import RequestError

EXTRA_FOLDER = "assets.extra"
GOLDEN_FILE = "golden.json"


@dataclass(frozen=True)
class Golden:
    """Texts of the test split with the labels and probabilities that Keras gave when it was evaluated.

    `in_set` says which labels are in each text's conformal set, with `threshold` as the least probability; both are
    None in an export from before there were sets.
    """

    label_names: list[str]
    texts: list[str]
    labels: list[str]
    probabilities: np.ndarray  # float64[texts, label names]
    threshold: float | None = None
    in_set: np.ndarray | None = None  # bool[texts, label names]


def read_golden(version_folder: Path) -> Golden:
    """The golden answers of an export. Raises `RequestError` where there are none, or none that can be read."""
    file = version_folder / EXTRA_FOLDER / GOLDEN_FILE
    if not file.is_file():
        raise RequestError(
            f"{version_folder} holds no {EXTRA_FOLDER}/{GOLDEN_FILE}, so there is nothing to compare with"
        )
    try:
        golden = _golden(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{file} cannot be read as golden answers: {error}") from error
    rows, columns = len(golden.texts), len(golden.label_names)
    if not rows or len(golden.labels) != rows or golden.probabilities.shape != (rows, columns):
        raise RequestError(
            f"{file} holds {rows} texts, {len(golden.labels)} labels and probabilities of shape"
            f" {golden.probabilities.shape} for {columns} label names: expected a label and a row for each text, and"
            " at least one text"
        )
    if golden.in_set is not None and golden.in_set.shape != (rows, columns):
        raise RequestError(f"{file} holds sets of shape {golden.in_set.shape}: expected {(rows, columns)}")
    return golden


def _golden(content: dict[str, Any]) -> Golden:
    values = {**content, "probabilities": np.array(content["probabilities"], np.float64)}
    if "in_set" in content or "threshold" in content:
        values |= {"in_set": np.array(content["in_set"], np.bool_), "threshold": float(content["threshold"])}
    return Golden(**values)


def encoded(texts: list[str]) -> np.ndarray:
    """The texts in UTF-8, as an object array of bytes; half of a surrogate pair, which has no UTF-8 form, as `?`."""
    values = np.empty(len(texts), object)
    values[:] = [text.encode(errors="replace") for text in texts]
    return values
