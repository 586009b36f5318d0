"""The models: one file and one line each. Add yours here and the contract tests pick it up."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from models.config import ModelConfig
from models.linear import LinearConfig, build_linear, count_ratios
from models.lstm import LSTMConfig, build_lstm
from models.transformer import TransformerConfig, build_transformer


class ModelEntry(NamedTuple):
    """A model's configuration, the function that builds it, and what it counts before training, if anything."""

    config: type[ModelConfig]
    build: Callable[..., keras.Model]
    count: Callable[..., None] | None = None
    """Called once as `count(model, config, batches)` with the training split, before the first step."""


MODELS: dict[str, ModelEntry] = {
    "linear": ModelEntry(LinearConfig, build_linear, count_ratios),
    "lstm": ModelEntry(LSTMConfig, build_lstm),
    "transformer": ModelEntry(TransformerConfig, build_transformer),
}
