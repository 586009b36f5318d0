"""Performer: a Transformer encoder whose attention is estimated, for texts too long for the exact one."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers
from pydantic import Field, PositiveInt, model_validator

from models.blocks import Positions, mixing_block, with_positions
from models.ends import EncoderConfig, classifier, embed, stem
from models.favor import FavorAttention


class PerformerConfig(EncoderConfig, frozen=True, extra="forbid"):
    """Sizes of the Performer classifier."""

    learning_rate: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.3, ge=0)
    epochs: int = Field(4, ge=1)
    num_layers: PositiveInt = 1
    num_heads: PositiveInt = 4
    num_features: PositiveInt = 128
    """Random features of each head: the error of the attention falls with their root, the cost grows with them."""
    intermediate_dim: PositiveInt = 256
    positions: Positions = "learned"
    piece_dropout: float = Field(0.2, ge=0, lt=1)
    embedding_dropout: float = Field(0.3, ge=0, lt=1)
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> PerformerConfig:
        if self.embedding_dim % self.num_heads:
            raise ValueError(
                f"num_heads must divide embedding_dim ({self.embedding_dim}), and {self.num_heads} does not"
            )
        return self


def build_performer(
    config: PerformerConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int
) -> keras.Model:
    """Token ids int32[batch, time <= sequence_length], 0 = padding -> logits float32[batch, num_classes].

    Source: Choromanski et al., 2021, "Rethinking attention with Performers".
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    padding_mask = keras.ops.not_equal(token_ids, 0)
    inputs, padding_mask = stem(config, embed(config, token_ids, vocabulary_size), padding_mask)
    states = layers.Dropout(config.embedding_dropout)(with_positions(config.positions, inputs, sequence_length))
    for index in range(config.num_layers):
        attention = FavorAttention(config.num_heads, config.num_features, name=f"block_{index}_attention")

        def attend(normalised: Any, attention: FavorAttention = attention) -> Any:
            return attention(normalised, padding_mask)

        states = mixing_block(
            states, attend, intermediate_dim=config.intermediate_dim, dropout=config.dropout, name=f"block_{index}"
        )
    states = layers.LayerNormalization(name="final_norm")(states)
    return classifier(config, token_ids, states, padding_mask, num_classes, "performer")
