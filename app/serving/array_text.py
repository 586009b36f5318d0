"""Named arrays as JSON text, bit for bit: what the processes of `verify` tell each other."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

# Signature -> output (or input) -> array; strings are object arrays of bytes.
Tensors = Mapping[str, Mapping[str, np.ndarray]]


def write_tensors(tensors: Tensors) -> dict[str, dict[str, Any]]:
    """Return what `json.dumps` takes and `read_tensors` reads."""
    return {name: {key: _written(array) for key, array in arrays.items()} for name, arrays in tensors.items()}


def read_tensors(written: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays that `write_tensors` has written."""
    return {name: {key: _read(array) for key, array in arrays.items()} for name, arrays in written.items()}


def _written(array: np.ndarray) -> dict[str, Any]:
    if array.dtype == object:
        values: Any = [b64encode(value).decode() for value in array.reshape(-1).tolist()]
    else:
        values = b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": values}


def _read(written: Mapping[str, Any]) -> np.ndarray:
    if written["dtype"] == "object":
        texts = np.empty(len(written["values"]), object)
        texts[:] = [b64decode(value) for value in written["values"]]
        return texts.reshape(written["shape"])
    # NumPy knows bfloat16 by the class of ml_dtypes alone.
    dtype = np.dtype(getattr(ml_dtypes, written["dtype"], written["dtype"]))
    return np.frombuffer(b64decode(written["values"]), dtype).reshape(written["shape"]).copy()
