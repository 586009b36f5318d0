"""Performer: a Transformer encoder whose attention is estimated, for texts too long for the exact one."""

from __future__ import annotations

import keras
from pydantic import PositiveInt, model_validator

from models.blocks import BlocksConfig, Positions, build_of_blocks, share_evenly
from models.favor import FavorAttention


class PerformerConfig(BlocksConfig, frozen=True, extra="forbid"):
    """Sizes of the Performer classifier."""

    num_heads: PositiveInt = 4
    num_features: PositiveInt = 128
    """Random features of each head: the error of the attention falls with their root, the cost grows with them."""
    positions: Positions = "learned"

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> PerformerConfig:
        share_evenly(self.num_heads, self.embedding_dim)
        return self


def build_performer(
    config: PerformerConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int
) -> keras.Model:
    """Token ids int32[batch, time <= sequence_length], 0 = padding -> logits float32[batch, num_classes].

    Source: Choromanski et al., 2021, "Rethinking attention with Performers".
    """
    return build_of_blocks(
        config,
        lambda name: FavorAttention(config.num_heads, config.num_features, name=f"{name}_attention"),
        vocabulary_size=vocabulary_size,
        num_classes=num_classes,
        sequence_length=sequence_length,
        name="performer",
    )
