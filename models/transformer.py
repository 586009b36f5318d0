"""Transformer encoder: the contender."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops
from pydantic import PositiveInt, model_validator

from models.attention import TransformerBlock
from models.blocks import BlocksConfig, share_evenly, with_positions
from models.config import Trial
from models.ends import embed, pool_and_classify, stem


class TransformerConfig(BlocksConfig, frozen=True, extra="forbid"):
    """Sizes of the Transformer classifier."""

    num_heads: PositiveInt = 4

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> TransformerConfig:
        share_evenly(self.num_heads, self.embedding_dim)
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
