"""What the encoders without softmax attention share: embedding with positions, and the block around their mixing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras_hub
from keras import layers

Positions = Literal["learned", "sinusoidal"]


def embed_with_positions(
    token_ids: Any, *, vocabulary_size: int, sequence_length: int, embedding_dim: int, positions: Positions
) -> Any:
    """Token ids int32[batch, time <= sequence_length] -> float32[batch, time, embedding_dim]."""
    if positions == "learned":
        return keras_hub.layers.TokenAndPositionEmbedding(
            vocabulary_size, sequence_length, embedding_dim, name="embedding"
        )(token_ids)
    embedded = layers.Embedding(vocabulary_size, embedding_dim, name="embedding")(token_ids)
    embedded = embedded * embedding_dim**0.5  # as Vaswani et al., 2017, do: the sines have an amplitude of 1
    return embedded + keras_hub.layers.SinePositionEncoding(name="positions")(embedded)


def mixing_block(states: Any, mix: Callable[[Any], Any], *, intermediate_dim: int, dropout: float, name: str) -> Any:
    """One encoder block, float32[batch, time, dim] -> the same shape; `mix` is what lets the steps see each other.

    Normalisation first, as in Xiong et al., 2020, "On layer normalization in the Transformer architecture".
    """
    mixed = mix(layers.LayerNormalization(name=f"{name}_mixing_norm")(states))
    states = states + layers.Dropout(dropout)(mixed)
    hidden = layers.LayerNormalization(name=f"{name}_norm")(states)
    hidden = layers.Dense(intermediate_dim, activation="gelu", name=f"{name}_intermediate")(hidden)
    hidden = layers.Dense(states.shape[-1], name=f"{name}_output")(hidden)
    return states + layers.Dropout(dropout)(hidden)
