"""What encoders of the Transformer's kind share: positions, and the block around their mixing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras_hub
from keras import layers

Positions = Literal["learned", "sinusoidal"]


def with_positions(positions: str, states: Any, sequence_length: int) -> Any:
    """Tell float32[batch, time <= sequence_length, dim] where each of its steps stands, as `Positions` has it."""
    if positions == "learned":
        return states + keras_hub.layers.PositionEmbedding(sequence_length, name="positions")(states)
    # Vaswani et al. scale by the root of the size: beside sines of amplitude 1 the pieces would be inaudible.
    scaled = states * states.shape[-1] ** 0.5
    return scaled + keras_hub.layers.SinePositionEncoding(name="positions")(scaled)


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
