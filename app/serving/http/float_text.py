"""Floats as TensorFlow Serving writes them."""

from __future__ import annotations

import re

import numpy as np

_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def write_floats(flat: np.ndarray) -> list[str]:
    """float32[n] or float64[n] as TensorFlow Serving writes them: `2.5`, `3.0`, `9e+06`, `123456.703`, `NaN`.

    Six significant digits where they read back as the same number, else as many as the type can need.
    """
    digits = 9 if flat.dtype == np.float32 else 17
    values = flat.tolist()
    texts = [f"{value:.6g}" for value in values]
    with np.errstate(over="ignore"):
        read_back = np.array(texts, np.float64).astype(flat.dtype)
    exact = (read_back == flat).tolist()
    return [
        _decimal(text if same else f"{value:.{digits}g}")
        for text, same, value in zip(texts, exact, values, strict=True)
    ]


def _decimal(text: str) -> str:
    if re.fullmatch(r"-?\d+", text):  # a whole number says that it is a float all the same
        return f"{text}.0"
    return _NOT_FINITE.get(text, text)
