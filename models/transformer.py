"""Transformer encoder: the contender."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import layers, ops
from pydantic import Field, PositiveInt, model_validator

from models.attention import TransformerBlock
from models.blocks import Positions, with_positions
from models.config import Trial
from models.ends import EncoderConfig, embed, pool_and_classify, stem


class TransformerConfig(EncoderConfig, frozen=True, extra="forbid"):
    """Sizes of the Transformer classifier."""

    learning_rate: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.3, ge=0)
    epochs: int = Field(4, ge=1)
    num_layers: PositiveInt = 1
    num_heads: PositiveInt = 4
    intermediate_dim: PositiveInt = 256
    positions: Positions | Literal["rotary", "alibi"] = "learned"
    """Where the blocks learn where a step stands: added to the embeddings, or, as the last two, in the attention."""
    piece_dropout: float = Field(0.2, ge=0, lt=1)
    embedding_dropout: float = Field(0.3, ge=0, lt=1)
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> TransformerConfig:
        if self.embedding_dim % self.num_heads:
            raise ValueError(
                f"num_heads must divide embedding_dim ({self.embedding_dim}), and {self.num_heads} does not"
            )
        return self

    @classmethod
    def suggest(cls, trial: Trial) -> dict[str, Any]:
        """Return the settings of one trial of `valence tune`."""
        sizes = {
            "num_layers": trial.suggest_int("num_layers", 1, 3),
            "intermediate_dim": trial.suggest_categorical("intermediate_dim", (128, 256, 512)),
        }
        return super().suggest(trial) | sizes


def build_transformer(
    config: TransformerConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int
) -> keras.Model:
    """Token ids int32[batch, time <= sequence_length], 0 = padding -> logits float32[batch, num_classes].

    Source: Vaswani et al., 2017, "Attention is all you need"; layer normalisation first, as in Xiong et al., 2020,
    "On layer normalization in the Transformer architecture", which needs no long warm-up.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    # The mask goes by hand: Keras loses the implicit one at the first `a + b`.
    padding_mask = ops.not_equal(token_ids, 0)
    embedded = embed(config, token_ids, vocabulary_size)
    inputs, padding_mask = stem(config, embedded, padding_mask)
    in_attention = config.positions if config.positions in ("rotary", "alibi") else "none"
    if in_attention == "none":
        inputs = with_positions(config.positions, inputs, sequence_length)
    states = layers.Dropout(config.embedding_dropout)(inputs)
    for index in range(config.num_layers):
        block = TransformerBlock(
            config.intermediate_dim,
            config.num_heads,
            dropout=config.dropout,
            positions=in_attention,
            name=f"block_{index}",
        )
        states = block(states, padding_mask)
    states = layers.LayerNormalization(name="final_norm")(states)
    return pool_and_classify(config, token_ids, states, padding_mask, num_classes, "transformer")
