"""Convolutions of several widths, the strongest answer of each: phrases, wherever they stand."""

from __future__ import annotations

import keras
from keras import layers, ops
from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from models.ends import EncoderConfig, answer, embed


class CNNConfig(EncoderConfig, frozen=True, extra="forbid"):
    """Sizes of the convolutional classifier."""

    learning_rate: float = Field(1e-3, gt=0)
    filters: PositiveInt = 128
    """Filters of each width."""
    widths: tuple[PositiveInt, ...] = Field((2, 3, 4, 5), min_length=1)
    """Widths of the windows, in pieces."""

    @field_validator("stem_kernel", "stem_pooling")
    @classmethod
    def _take_no_stem(cls, value: int, info: ValidationInfo) -> int:
        if value != cls.model_fields[str(info.field_name)].default:
            raise ValueError("a cnn is convolutions already and takes no stem before them; see model.widths")
        return value

    @field_validator("widths")
    @classmethod
    def _name_each_width_once(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(widths)) < len(widths):
            raise ValueError("each width stands once; more filters of it are model.filters")
        return widths


def build_cnn(config: CNNConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int) -> keras.Model:
    """Token ids int32[batch, time], 0 = padding -> logits float32[batch, num_classes].

    Source: Kim, 2014, "Convolutional neural networks for sentence classification". A window may reach over either end
    of a text, onto zeros. `sequence_length` bounds time and changes nothing here.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    padding_mask = ops.expand_dims(ops.not_equal(token_ids, 0), -1)
    embedded = layers.Dropout(config.embedding_dropout)(embed(config, token_ids, vocabulary_size))
    # Padding has a vector too: without this, a window at a text's end would see how far the batch is padded.
    embedded = ops.where(padding_mask, embedded, 0.0)
    strongest = []
    for width in config.widths:
        convolution = layers.Conv1D(config.filters, width, padding="same", activation="relu", name=f"width_{width}")
        # No filter answers below zero, so a masked step never wins the maximum.
        answers = ops.where(padding_mask, convolution(embedded), 0.0)
        strongest.append(ops.max(answers, axis=1))
    return answer(config, token_ids, ops.concatenate(strongest, axis=-1), num_classes, "cnn")
