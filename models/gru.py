"""Embedding + GRU: as the LSTM, with one gate and one state fewer."""

from __future__ import annotations

from typing import Literal, Self

import keras
from keras import layers
from pydantic import Field, PositiveInt

from models.ends import EncoderConfig, embed, pool_and_classify, stem


class GRUConfig(EncoderConfig, frozen=True, extra="forbid"):
    """Sizes of the GRU classifier."""

    learning_rate: float = Field(2e-3, gt=0)
    hidden_dim: PositiveInt = 64
    bidirectional: bool = True
    use_cudnn: Literal["auto", False] = "auto"
    """`auto` trains with cuDNN's kernel where a GPU is seen. A graph traced so cannot run on a CPU."""

    def portable(self) -> Self:
        """Return the same network on plain operations, whatever devices are seen while it is traced."""
        return self.model_copy(update={"use_cudnn": False})


def build_gru(config: GRUConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int) -> keras.Model:
    """Token ids int32[batch, time], 0 = padding -> logits float32[batch, num_classes].

    Source: Cho et al., 2014, "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation". `sequence_length` bounds time and changes nothing here.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    # The mask goes by hand: Keras loses the implicit one at the first `a + b`.
    padding_mask = keras.ops.not_equal(token_ids, 0)
    embedded = layers.Dropout(config.embedding_dropout)(embed(config, token_ids, vocabulary_size))
    inputs, padding_mask = stem(config, embedded, padding_mask)
    # The reset gate after the matrix product, unlike Cho et al.: the only form that cuDNN has, and with other biases
    # than theirs, so that the portable copy must take the same.
    # float32 in any precision: what is added up over all steps needs the digits, and cuDNN is sure to have it.
    gru = layers.GRU(
        config.hidden_dim,
        return_sequences=True,
        reset_after=True,
        use_cudnn=config.use_cudnn,
        dtype="float32",
        name="gru",
    )
    encoder = layers.Bidirectional(gru, dtype="float32", name="encoder") if config.bidirectional else gru
    states = encoder(inputs, mask=padding_mask)
    return pool_and_classify(config, token_ids, states, padding_mask, num_classes, "gru")
