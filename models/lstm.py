"""Embedding + LSTM: the baseline that every other encoder has to beat."""

from __future__ import annotations

from typing import Literal, Self

import keras
from keras import layers
from pydantic import Field, PositiveInt

from models.config import ModelConfig
from models.layers import MaskedMeanMax, PieceDropout


class LSTMConfig(ModelConfig, frozen=True, extra="forbid"):
    """Sizes of the LSTM classifier."""

    learning_rate: float = Field(2e-3, gt=0)
    embedding_dim: PositiveInt = 128
    hidden_dim: PositiveInt = 64
    bidirectional: bool = True
    piece_dropout: float = Field(0.1, ge=0, lt=1)
    embedding_dropout: float = Field(0.4, ge=0, lt=1)
    output_dropout: float = Field(0.5, ge=0, lt=1)
    use_cudnn: Literal["auto", False] = "auto"
    """`auto` trains with cuDNN's kernel where a GPU is seen. A graph traced so cannot run on a CPU."""

    def portable(self) -> Self:
        """Return the same network on plain operations, whatever devices are seen while it is traced."""
        return self.model_copy(update={"use_cudnn": False})


def build_lstm(config: LSTMConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int) -> keras.Model:
    """Token ids int32[batch, time], 0 = padding -> logits float32[batch, num_classes].

    Source: Hochreiter & Schmidhuber, 1997, "Long short-term memory"; pooled over all steps as in Howard & Ruder,
    2018, "Universal language model fine-tuning". `sequence_length` bounds time and changes nothing here.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    padding_mask = keras.ops.not_equal(token_ids, 0)
    kept_ids = PieceDropout(config.piece_dropout)(token_ids)
    embedded = layers.Embedding(vocabulary_size, config.embedding_dim, name="embedding")(kept_ids)
    embedded = layers.Dropout(config.embedding_dropout)(embedded)
    lstm = layers.LSTM(config.hidden_dim, return_sequences=True, use_cudnn=config.use_cudnn, name="lstm")
    encoder = layers.Bidirectional(lstm, name="encoder") if config.bidirectional else lstm
    # The mask goes by hand: Keras loses the implicit one at the first `a + b`.
    states = layers.Identity(name="states")(encoder(embedded, mask=padding_mask))
    pooled = layers.Dropout(config.output_dropout)(MaskedMeanMax(name="pooling")(states, padding_mask))
    logits = layers.Dense(num_classes, name="logits")(pooled)
    return keras.Model(token_ids, logits, name="lstm")
