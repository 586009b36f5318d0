"""What stands between the embedding and an encoder: neighbouring pieces seen together, long rows made short."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from models.layers import LARGE


@keras.saving.register_keras_serializable("valence")
class ConvolutionStem(keras.layers.Layer):
    """A convolution over neighbouring steps, then the maximum of each group of `pooling` steps.

    float32[batch, time, dim] and padding_mask bool[batch, time] (True = a piece)
    -> float32[batch, ceil(time / pooling), filters]; `ShortenMask` gives the mask that belongs to it.

    Neither sees padding: it enters the convolution as zeros, wherever a row ends, and never wins a maximum. With
    pooling an encoder reads a long text in a fraction of the steps. Source: Zhou et al., 2015, "A C-LSTM neural
    network for text classification"; the pooling before the recurrence as in Wang et al., 2016, "Combination of
    convolutional and recurrent neural network for sentiment analysis of short texts".
    """

    def __init__(self, filters: int, kernel_size: int, pooling: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True  # or Keras warns that the implicit mask ends here, as it should
        self.filters = filters
        self.kernel_size = kernel_size
        self.pooling = pooling
        self.convolution = layers.Conv1D(filters, kernel_size, padding="same", activation="relu", name="convolution")

    def build(self, states_shape: tuple, padding_mask_shape: tuple | None = None) -> None:
        """Make the kernel."""
        self.convolution.build(states_shape)

    def compute_mask(self, *_: Any) -> None:
        """Return no mask: it goes by hand."""

    def call(self, states: Any, padding_mask: Any) -> Any:
        """Convolve, then pool."""
        mask = ops.cast(padding_mask, states.dtype)[:, :, None]
        states = self.convolution(states * mask)
        if self.pooling == 1:
            return states
        pooled = ops.max(_grouped(states - (1.0 - mask) * LARGE, self.pooling, -LARGE), axis=2)
        return ops.where(pooled > -LARGE / 2, pooled, 0.0)  # a group of padding alone

    def compute_output_shape(self, states_shape: tuple, padding_mask_shape: tuple | None = None) -> tuple:
        """Shape of the pooled states."""
        return (states_shape[0], _groups(states_shape[1], self.pooling), self.filters)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {"filters": self.filters, "kernel_size": self.kernel_size, "pooling": self.pooling}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("valence")
class ShortenMask(keras.layers.Layer):
    """The padding mask of pooled states: bool[batch, time] -> bool[batch, ceil(time / pooling)].

    A group of steps is a piece where one of them is.
    """

    def __init__(self, pooling: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pooling = pooling

    def call(self, padding_mask: Any) -> Any:
        """Ask each group for a piece."""
        return ops.any(_grouped(padding_mask[:, :, None], self.pooling, False)[:, :, :, 0], axis=2)

    def compute_output_shape(self, padding_mask_shape: tuple) -> tuple:
        """Shape of the shorter mask."""
        return (padding_mask_shape[0], _groups(padding_mask_shape[1], self.pooling))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "pooling": self.pooling}


def _groups(time: int | None, pooling: int) -> int | None:
    return None if time is None else -(-time // pooling)


def _grouped(steps: Any, pooling: int, fill: Any) -> Any:
    """[batch, time, dim] -> [batch, groups, pooling, dim]; the last group filled up at the end, so that it is the same
    however much padding follows."""
    filled = ops.pad(steps, [[0, 0], [0, pooling - 1], [0, 0]], constant_values=fill)
    groups = ops.shape(filled)[1] // pooling
    shape = [ops.shape(steps)[0], groups, pooling, steps.shape[-1]]
    return ops.reshape(filled[:, : groups * pooling], shape)
