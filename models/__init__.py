"""The models: one file and one line each. Add yours here and the contract tests pick it up."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from models.cnn import CNNConfig, build_cnn
from models.config import ModelConfig
from models.fnet import FNetConfig, build_fnet
from models.gru import GRUConfig, build_gru
from models.linear import LinearConfig, adapt_ratios, build_linear
from models.lstm import LSTMConfig, build_lstm
from models.performer import PerformerConfig, build_performer
from models.transformer import TransformerConfig, build_transformer


class ModelEntry(NamedTuple):
    """A model's configuration, the function that builds it, and what else the rest has to know of it."""

    config: type[ModelConfig]
    build: Callable[..., keras.Model]
    adapt: Callable[..., None] | None = None
    """Called once as `adapt(model, config, batches)` with the training split, before the first step."""
    linear_memory: bool = False
    """Takes memory that grows with the pieces of a text, not with their square: more texts are answered at once."""
    any_length: bool = False
    """Takes rows of any length at a cost that grows no faster than they do, so that nothing is gained by windows."""


MODELS: dict[str, ModelEntry] = {
    "linear": ModelEntry(LinearConfig, build_linear, adapt_ratios, linear_memory=True, any_length=True),
    "lstm": ModelEntry(LSTMConfig, build_lstm, linear_memory=True),
    "transformer": ModelEntry(TransformerConfig, build_transformer),
    "cnn": ModelEntry(CNNConfig, build_cnn, linear_memory=True),
    "gru": ModelEntry(GRUConfig, build_gru, linear_memory=True),
    "performer": ModelEntry(PerformerConfig, build_performer, linear_memory=True),
    "fnet": ModelEntry(FNetConfig, build_fnet),
}

DEFAULT_MODELS = ("linear", "lstm", "transformer")
"""What is trained where no model is named: the floor, the baseline and the contender."""
