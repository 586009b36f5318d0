"""What training asks of a GPU where one is seen: memory as it is needed, the precision that its cores are fast in."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Literal

import keras
import tensorflow as tf

logger = logging.getLogger("valence")

Precision = Literal["auto", "float32", "mixed_bfloat16"]
# Compute capability, from NVIDIA's table, of the first cores for bfloat16 (Ampere).
BFLOAT16_SINCE = (8, 0)


def let_memory_grow() -> None:
    """Let TensorFlow take a GPU's memory as it needs it instead of all at once, so that others can use it too."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError) as error:  # whoever initialised the GPU earlier in this process has decided
            logger.warning("The memory of %s is taken as it was set up before: %s", gpu.name, error)


def resolve_precision(asked: Precision) -> str:
    """Return the name of Keras' dtype policy to train with; `auto`: bfloat16 if every GPU has cores for it."""
    if asked != "auto":
        return asked
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return "mixed_bfloat16" if min(capabilities, default=(0, 0)) >= BFLOAT16_SINCE else "float32"


@contextlib.contextmanager
def built_for(asked: Precision) -> Iterator[None]:
    """Layers built inside compute in that precision; their weights are float32 in any.

    Source: Micikevicius et al., 2018, "Mixed precision training", with bfloat16, whose range needs no scaled loss.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(resolve_precision(asked))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
