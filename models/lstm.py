"""Embedding + LSTM: the baseline that every other encoder has to beat."""

from __future__ import annotations

from typing import Any, Literal, Self

import keras
from keras import layers
from pydantic import Field, PositiveInt

from models.config import Trial
from models.ends import EncoderConfig, embed, pool_and_classify, stem
from models.recurrence import FastLSTM


class LSTMConfig(EncoderConfig, frozen=True, extra="forbid"):
    """Sizes of the LSTM classifier."""

    learning_rate: float = Field(2e-3, gt=0)
    hidden_dim: PositiveInt = 64
    bidirectional: bool = True
    use_cudnn: Literal["auto", False] = "auto"
    """`auto` trains with cuDNN's kernel where a GPU is seen, else with compiled steps; `False`: in `BlockLSTM`."""

    def portable(self) -> Self:
        """Return the same network on operations for any device, whatever devices are seen while it is traced."""
        return self.model_copy(update={"use_cudnn": False})

    @classmethod
    def suggest(cls, trial: Trial) -> dict[str, Any]:
        """Return the settings of one trial of `valence tune`."""
        # Not the embedding's size: vectors that training may start from have one.
        sizes = {"hidden_dim": trial.suggest_categorical("hidden_dim", (32, 64, 128))}
        return super().suggest(trial) | sizes


def build_lstm(config: LSTMConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int) -> keras.Model:
    """Token ids int32[batch, time], 0 = padding -> logits float32[batch, num_classes].

    Source: Hochreiter & Schmidhuber, 1997, "Long short-term memory". `sequence_length` bounds time and changes nothing.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    # The mask goes by hand: Keras loses the implicit one at the first `a + b`.
    padding_mask = keras.ops.not_equal(token_ids, 0)
    embedded = layers.Dropout(config.embedding_dropout)(embed(config, token_ids, vocabulary_size))
    inputs, padding_mask = stem(config, embedded, padding_mask)
    # float32 in any precision: what is added up over all steps needs the digits, and cuDNN is sure to have it.
    lstm = FastLSTM(config.hidden_dim, config.bidirectional, config.use_cudnn, dtype="float32", name="encoder")
    # Without a convolution, what is read at a piece depends on the piece alone.
    states = lstm(inputs, padding_mask, token_ids=None if config.stem_kernel else token_ids)
    return pool_and_classify(config, token_ids, states, padding_mask, num_classes, "lstm")
