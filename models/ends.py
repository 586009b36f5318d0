"""The two ends that encoders share: pieces to embeddings, states to logits."""

from __future__ import annotations

from typing import Any, Self

import keras
from keras import layers
from pydantic import Field, PositiveInt, model_validator

from models.layers import MaskedMeanMax, PieceDropout
from models.stem import ConvolutionStem, ShortenMask
from models.wide import WideConfig


class EncoderConfig(WideConfig, frozen=True, extra="forbid"):
    """What every encoder of pieces can be told about its two ends."""

    embedding_dim: PositiveInt = 128
    piece_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the pieces that are hidden as `[UNK]` in each training step."""
    embedding_dropout: float = Field(0.4, ge=0, lt=1)
    output_dropout: float = Field(0.5, ge=0, lt=1)
    stem_kernel: int = Field(0, ge=0, le=15)
    """Pieces that a convolution sees together before the encoder; 0 leaves it out."""
    stem_pooling: int = Field(1, ge=1, le=16)
    """Steps that become one after the convolution: a long text is read in a fraction of them. Needs `stem_kernel`."""

    @model_validator(mode="after")
    def _pool_only_after_a_convolution(self) -> Self:
        if self.stem_pooling > 1 and not self.stem_kernel:
            raise ValueError(f"stem_pooling = {self.stem_pooling} pools after a convolution: set stem_kernel, to 3 say")
        return self


def stem(config: EncoderConfig, embedded: Any, padding_mask: Any) -> tuple[Any, Any]:
    """Pass float32[batch, time, dim] and its mask through the convolution, where there is one.

    -> float32[batch, ceil(time / stem_pooling), dim] and the mask that belongs to it.
    """
    if not config.stem_kernel:
        return embedded, padding_mask
    states = ConvolutionStem(config.embedding_dim, config.stem_kernel, config.stem_pooling, name="stem")(
        embedded, padding_mask
    )
    if config.stem_pooling > 1:
        padding_mask = ShortenMask(config.stem_pooling, name="stem_mask")(padding_mask)
    return states, padding_mask


def embed(config: EncoderConfig, token_ids: Any, vocabulary_size: int) -> Any:
    """Pieces int32[batch, time], some hidden while training -> float32[batch, time, embedding_dim]."""
    kept_ids = PieceDropout(config.piece_dropout)(token_ids)
    return layers.Embedding(vocabulary_size, config.embedding_dim, name="embedding")(kept_ids)


def pool_and_classify(
    config: EncoderConfig, token_ids: Any, states: Any, padding_mask: Any, num_classes: int, name: str
) -> keras.Model:
    """End a model: float32[batch, time, dim] -> mean and maximum over time -> logits float32[batch, num_classes].

    Pooled over all steps as in Howard & Ruder, 2018, "Universal language model fine-tuning for text classification".
    `token_ids` is the model's input.
    """
    # From here on float32 in any precision: a mean over hundreds of steps needs more digits than bfloat16 has.
    states = layers.Identity(dtype="float32", name="states")(states)  # what pretraining learns to fill
    pooled = MaskedMeanMax(dtype="float32", name="pooling")(states, padding_mask)
    return classify(config, token_ids, pooled, num_classes, name)


def classify(config: EncoderConfig, token_ids: Any, pooled: Any, num_classes: int, name: str) -> keras.Model:
    """End a model at what it has pooled: float32[batch, features] -> logits float32[batch, num_classes]."""
    pooled = layers.Dropout(config.output_dropout, dtype="float32")(pooled)
    return keras.Model(token_ids, layers.Dense(num_classes, dtype="float32", name="logits")(pooled), name=name)
