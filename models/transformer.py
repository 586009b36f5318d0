"""Transformer encoder: the contender."""

from __future__ import annotations

from typing import Any, Literal

import keras
import keras_hub
from keras import layers
from pydantic import Field, PositiveInt, model_validator

from models.config import ModelConfig
from models.layers import MaskedMeanMax, PieceDropout


class TransformerConfig(ModelConfig, frozen=True, extra="forbid"):
    """Sizes of the Transformer classifier."""

    learning_rate: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.3, ge=0)
    epochs: int = Field(4, ge=1)
    embedding_dim: PositiveInt = 128
    num_layers: PositiveInt = 1
    num_heads: PositiveInt = 4
    intermediate_dim: PositiveInt = 256
    positions: Literal["learned", "sinusoidal"] = "learned"
    piece_dropout: float = Field(0.2, ge=0, lt=1)
    embedding_dropout: float = Field(0.3, ge=0, lt=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    output_dropout: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> TransformerConfig:
        if self.embedding_dim % self.num_heads:
            raise ValueError(
                f"num_heads must divide embedding_dim ({self.embedding_dim}), and {self.num_heads} does not"
            )
        return self


def build_transformer(
    config: TransformerConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int
) -> keras.Model:
    """Token ids int32[batch, time <= sequence_length], 0 = padding -> logits float32[batch, num_classes].

    Source: Vaswani et al., 2017, "Attention is all you need"; layer normalisation first, as in Xiong et al., 2020,
    "On layer normalization in the Transformer architecture", which needs no long warm-up.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    padding_mask = keras.ops.not_equal(token_ids, 0)
    states = _embed(config, vocabulary_size, sequence_length)(PieceDropout(config.piece_dropout)(token_ids))
    states = layers.Dropout(config.embedding_dropout)(states)
    for index in range(config.num_layers):
        block = keras_hub.layers.TransformerEncoder(
            config.intermediate_dim,
            config.num_heads,
            dropout=config.dropout,
            activation="gelu",
            normalize_first=True,
            name=f"block_{index}",
        )
        # The mask goes by hand: Keras loses the implicit one at the first `a + b`.
        states = block(states, padding_mask=padding_mask)
    states = layers.Identity(name="states")(layers.LayerNormalization(name="final_norm")(states))
    pooled = layers.Dropout(config.output_dropout)(MaskedMeanMax(name="pooling")(states, padding_mask))
    logits = layers.Dense(num_classes, name="logits")(pooled)
    return keras.Model(token_ids, logits, name="transformer")


def _embed(config: TransformerConfig, vocabulary_size: int, sequence_length: int) -> Any:
    """Return the function from token ids to embeddings that know their position."""
    if config.positions == "learned":
        return keras_hub.layers.TokenAndPositionEmbedding(
            vocabulary_size, sequence_length, config.embedding_dim, name="embedding"
        )
    tokens = layers.Embedding(vocabulary_size, config.embedding_dim, name="embedding")
    positions = keras_hub.layers.SinePositionEncoding(name="positions")

    def embed(token_ids: Any) -> Any:
        # Vaswani et al. scale by the root of the size: beside sines of amplitude 1 the pieces would be inaudible.
        embedded = tokens(token_ids) * config.embedding_dim**0.5
        return embedded + positions(embedded)

    return embed
