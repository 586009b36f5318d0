"""The models: one file and one line each. Add yours here and the contract tests pick it up."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from models.config import ModelConfig
from models.linear import LinearConfig, adapt_ratios, build_linear
from models.lstm import LSTMConfig, build_lstm
from models.transformer import TransformerConfig, build_transformer
from models.wide import adapt_ngrams


class ModelEntry(NamedTuple):
    """A model's configuration, the function that builds it, and what it takes from the data before training, if any."""

    config: type[ModelConfig]
    build: Callable[..., keras.Model]
    adapt: Callable[..., None] | None = None
    """Called once as `adapt(model, config, batches)` with the training split, before the first step."""


MODELS: dict[str, ModelEntry] = {
    "linear": ModelEntry(LinearConfig, build_linear, adapt_ratios),
    "lstm": ModelEntry(LSTMConfig, build_lstm, adapt_ngrams),
    "transformer": ModelEntry(TransformerConfig, build_transformer, adapt_ngrams),
}
