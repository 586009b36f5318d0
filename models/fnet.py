"""FNet: a Transformer encoder whose attention is a Fourier transform, which has nothing to learn."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from models.blocks import BlocksConfig, Positions, build_of_blocks


class FNetConfig(BlocksConfig, frozen=True, extra="forbid"):
    """Sizes of the FNet classifier."""

    positions: Positions = "learned"


@keras.saving.register_keras_serializable("valence")
class FourierMixing(keras.layers.Layer):
    """Real part of the Fourier transform over steps and dimensions, each row over its own length.

    float32[batch, time, dim] and padding_mask bool[batch, time] (True = a piece, padding on the right) ->
    float32[batch, time, dim], zeros where padded. Divided by the root of length times dim: a long row is no louder.

    keras_hub's FNetEncoder transforms over all steps of the batch, padding included, so that its answer depends on how
    far a row is padded, and zeroing the padding does not mend it: the frequencies are those of the padded length.
    Here every row has the cosines and sines of its own length n, at the angles 2 pi j k / n. That costs the square
    of the length, as attention does, and less than a fast transform of every length up to several hundred steps.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True  # the mask goes by hand; what comes out has the same steps

    def call(self, states: Any, padding_mask: Any) -> Any:
        """Mix."""
        dim = states.shape[-1]
        cosines, sines = _over_steps(padding_mask)
        angles = 2 * np.pi / dim * np.outer(np.arange(dim), np.arange(dim))
        of_cosines, of_sines = (
            ops.matmul(over_steps, ops.matmul(states, ops.cast(over_dim * dim**-0.5, states.dtype)))
            for over_steps, over_dim in ((cosines, np.cos(angles)), (sines, np.sin(angles)))
        )
        return of_cosines - of_sines

    def compute_output_shape(self, states_shape: tuple, padding_mask_shape: tuple) -> tuple:
        """Shape of the states, unchanged."""
        return states_shape


def _over_steps(padding_mask: Any) -> tuple[Any, Any]:
    """Cosines and sines float32[batch, time, time] of each row's own length, divided by its root; zeros in padding."""
    mask = ops.cast(padding_mask, "float32")
    length = ops.maximum(ops.sum(ops.cast(padding_mask, "int32"), axis=1), 1)[:, None, None]
    step = ops.arange(ops.shape(padding_mask)[1], dtype="int32")
    # Whole turns are taken off as integers: float32 has no digits left for an angle of thousands of turns.
    turns = ops.cast((step[:, None] * step[None, :])[None] % length, "float32") / ops.cast(length, "float32")
    weight = mask[:, :, None] * mask[:, None, :] * ops.rsqrt(ops.cast(length, "float32"))
    return ops.cos(2 * math.pi * turns) * weight, ops.sin(2 * math.pi * turns) * weight


def build_fnet(config: FNetConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int) -> keras.Model:
    """Token ids int32[batch, time <= sequence_length], 0 = padding -> logits float32[batch, num_classes].

    Source: Lee-Thorp et al., 2022, "FNet: mixing tokens with Fourier transforms"; normalisation first, unlike there.
    """
    return build_of_blocks(
        config,
        lambda name: FourierMixing(name=f"{name}_mixing"),
        vocabulary_size=vocabulary_size,
        num_classes=num_classes,
        sequence_length=sequence_length,
        name="fnet",
    )
