"""What `verify` asks an export, over every road: its golden texts, and a blank row where texts do not fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from app.serving.c_tensors import array_dtype
from app.serving.golden import Golden, encoded
from app.serving.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

_TEXT = "text"
# What TensorFlow writes for itself, to initialise and restore the graph.
_INTERNAL = "__"


def questions(signatures: Mapping[str, Signature], golden: Golden | None) -> dict[str, dict[str, np.ndarray]]:
    """The inputs that each signature is run on, by its name.

    One that takes `text` string[n] alone gets the golden texts; any other one gets a row of empty strings and zeros.
    `serving_default` comes first, the others by name. Raises `RequestError` for a dtype that arrays do not have.
    """
    names = sorted((name for name in signatures if not name.startswith(_INTERNAL)), key=_place)
    return {name: _question(signatures[name], golden) for name in names}


def _place(name: str) -> tuple[bool, str]:
    return name != DEFAULT_SIGNATURE, name


def _question(signature: Signature, golden: Golden | None) -> dict[str, np.ndarray]:
    return {_TEXT: encoded(golden.texts)} if golden and _takes_texts(signature) else _blank_row(signature)


def _takes_texts(signature: Signature) -> bool:
    text = signature.inputs.get(_TEXT)
    return len(signature.inputs) == 1 and text is not None and (text.dtype, text.shape) == ("DT_STRING", (-1,))


def _blank_row(signature: Signature) -> dict[str, np.ndarray]:
    return {name: _blank(info) for name, info in signature.inputs.items()}


def _blank(info: TensorInfo) -> np.ndarray:
    shape = tuple(1 if size < 0 else size for size in info.shape or ())
    return np.full(shape, b"", object) if info.dtype == "DT_STRING" else np.zeros(shape, array_dtype(info.dtype))
