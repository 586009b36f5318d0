"""What encoders of the Transformer's kind share: sizes, positions, and the blocks around their mixing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import keras
import keras_hub
from keras import layers
from pydantic import Field, PositiveInt

from models.ends import EncoderConfig, embed, pool_and_classify, stem

Positions = Literal["learned", "sinusoidal"]


class BlocksConfig(EncoderConfig, frozen=True, extra="forbid"):
    """Sizes of an encoder that is a stack of blocks."""

    weight_decay: float = Field(0.3, ge=0)
    num_layers: PositiveInt = 1
    intermediate_dim: PositiveInt = 256
    positions: Positions | Literal["rotary", "alibi"] = "learned"
    """Where the blocks learn where a step stands: added to the embeddings, or, as the last two, in the attention."""
    piece_dropout: float = Field(0.2, ge=0, lt=1)
    embedding_dropout: float = Field(0.3, ge=0, lt=1)
    dropout: float = Field(0.1, ge=0, lt=1)


def share_evenly(num_heads: int, embedding_dim: int) -> None:
    """Refuse heads that cannot share the dimensions.

    Raises:
        ValueError: they do not divide.
    """
    if embedding_dim % num_heads:
        raise ValueError(f"num_heads must divide embedding_dim ({embedding_dim}), and {num_heads} does not")


def build_of_blocks(
    config: BlocksConfig,
    mixing: Callable[[str], keras.layers.Layer],
    *,
    vocabulary_size: int,
    num_classes: int,
    sequence_length: int,
    name: str,
) -> keras.Model:
    """Token ids int32[batch, time <= sequence_length], 0 = padding -> logits float32[batch, num_classes].

    `mixing` makes, given the block's name, what lets the steps of a block see each other: a layer that takes normalised
    states float32[batch, time, dim] and their mask bool[batch, time], and returns states.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    # The mask goes by hand: Keras loses the implicit one at the first `a + b`.
    padding_mask = keras.ops.not_equal(token_ids, 0)
    inputs, padding_mask = stem(config, embed(config, token_ids, vocabulary_size), padding_mask)
    states = layers.Dropout(config.embedding_dropout)(with_positions(config.positions, inputs, sequence_length))
    for index in range(config.num_layers):
        states = _block(states, padding_mask, mixing, config, name=f"block_{index}")
    states = layers.LayerNormalization(name="final_norm")(states)
    return pool_and_classify(config, token_ids, states, padding_mask, num_classes, name)


def with_positions(positions: str, states: Any, sequence_length: int) -> Any:
    """Tell float32[batch, time <= sequence_length, dim] where each of its steps stands, as `Positions` has it.

    Raises:
        ValueError: `positions` is something else, such as what stands in an attention.
    """
    if positions not in get_args(Positions):
        raise ValueError(f"positions = {positions!r} cannot be added: {', '.join(get_args(Positions))} can")
    if positions == "learned":
        return states + keras_hub.layers.PositionEmbedding(sequence_length, name="positions")(states)
    # Vaswani et al. scale by the root of the size: beside sines of amplitude 1 the pieces would be inaudible.
    scaled = states * states.shape[-1] ** 0.5
    return scaled + keras_hub.layers.SinePositionEncoding(name="positions")(scaled)


def _block(states: Any, padding_mask: Any, mixing: Callable, config: BlocksConfig, name: str) -> Any:
    """Normalisation first, as in Xiong et al., 2020, "On layer normalization in the Transformer architecture"."""
    normalised = layers.LayerNormalization(name=f"{name}_mixing_norm")(states)
    states = states + layers.Dropout(config.dropout)(mixing(name)(normalised, padding_mask))
    hidden = layers.LayerNormalization(name=f"{name}_norm")(states)
    hidden = layers.Dense(config.intermediate_dim, activation="gelu", name=f"{name}_intermediate")(hidden)
    hidden = layers.Dense(states.shape[-1], name=f"{name}_output")(hidden)
    return states + layers.Dropout(config.dropout)(hidden)
