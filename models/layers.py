"""Layers that more than one encoder uses, or that Keras does not have. All take their mask by hand."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

LARGE = 1e9  # stands for infinity where a masked position must not win a maximum, and stays finite in a sum


@keras.saving.register_keras_serializable("valence")
class MaskedMeanMax(keras.layers.Layer):
    """Mean and maximum over the unmasked steps, side by side.

    float32[batch, time, dim] and padding_mask bool[batch, time] (True = a piece) -> float32[batch, 2 * dim].
    A row without any piece gives zeros, so that nothing that follows is NaN.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True  # or Keras warns that the implicit mask ends here, as it should

    def compute_mask(self, *_: Any) -> None:
        """Return no mask: the time axis is gone."""

    def call(self, states: Any, padding_mask: Any) -> Any:
        """Pool over the time axis."""
        mask = ops.cast(padding_mask, states.dtype)[:, :, None]
        count = ops.sum(mask, axis=1)
        mean = ops.sum(states * mask, axis=1) / ops.maximum(count, 1.0)
        maximum = ops.max(states - (1.0 - mask) * LARGE, axis=1)
        return ops.concatenate([mean, ops.where(count > 0, maximum, 0.0)], axis=-1)

    def compute_output_shape(self, states_shape: tuple, padding_mask_shape: tuple) -> tuple:
        """Shape of the pooled states."""
        return (states_shape[0], 2 * states_shape[-1])


@keras.saving.register_keras_serializable("valence")
class PieceDropout(keras.layers.Layer):
    """Replace a share of the pieces by `[UNK]` while training ("word dropout", Iyyer et al., 2015).

    int32[batch, time] -> int32[batch, time]. Padding and the leading `[CLS]` stay as they are.
    """

    def __init__(self, rate: float, unknown_id: int = 1, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.unknown_id = unknown_id
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, token_ids: Any, training: bool = False) -> Any:
        """Drop pieces when training, else pass the ids on."""
        if not training or self.rate == 0:
            return token_ids
        dropped = keras.random.uniform(ops.shape(token_ids), seed=self.seed_generator) < self.rate
        position = ops.arange(ops.shape(token_ids)[1])[None, :]
        return ops.where(dropped & (token_ids != 0) & (position > 0), self.unknown_id, token_ids)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "rate": self.rate, "unknown_id": self.unknown_id}
