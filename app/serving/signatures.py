"""What a SavedModel's signature declares, without TensorFlow's own classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_SIGNATURE = "serving_default"
# Signatures so named are TensorFlow's own, to initialise and restore the graph.
INTERNAL = "__"


@dataclass(frozen=True)
class TensorInfo:
    """One input or output: `dtype` is TensorFlow's name for it (DT_STRING, DT_FLOAT, ...)."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None  # -1: any size; None: the rank is unknown


@dataclass(frozen=True)
class Signature:
    """One entry point of a SavedModel, as its file declares it."""

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    method_name: str
