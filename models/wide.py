"""The n-gram path beside an encoder, in one graph: what `linear` knows, the encoder need not learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import layers
from pydantic import Field

from models.config import ModelConfig
from models.linear import MULTIPLIERS, HashedNGrams, LinearConfig, LogCountRatios, count_ratios

ENCODER_LOGITS = "encoder_logits"


class WideConfig(ModelConfig, frozen=True, extra="forbid"):
    """Whether an encoder has an n-gram path beside it, and how large."""

    wide: bool = True
    """Add the logits of hashed n-grams to those of the encoder. Without it the encoder answers alone."""
    wide_ngrams: int = Field(2, ge=1, le=len(MULTIPLIERS))
    wide_buckets: int = Field(2**18, ge=2)

    def ngram_config(self) -> LinearConfig:
        """Return the path's configuration as that of a linear model of its own."""
        return LinearConfig(ngrams=self.wide_ngrams, num_buckets=self.wide_buckets)


def with_ngrams(config: WideConfig, token_ids: Any, encoder_logits: Any, num_classes: int) -> Any:
    """Add what the n-grams of token_ids int32[batch, time] say to encoder_logits float32[batch, num_classes].

    Source: Cheng et al., 2016, "Wide & deep learning for recommender systems".
    """
    linear = config.ngram_config()
    buckets = HashedNGrams(linear.ngrams, linear.num_buckets, name="ngrams")(token_ids)
    ngram_logits = LogCountRatios(
        linear.num_buckets,
        num_classes,
        linear.base_weight,
        step_scale=linear.learning_rate / config.learning_rate,
        name="ngram_logits",
    )(buckets)
    return layers.Add(name="logits")([encoder_logits, ngram_logits])


def adapt_ngrams(model: keras.Model, config: WideConfig, batches: Iterable[tuple[Any, Any]]) -> None:
    """Count the log-count ratios of the n-gram path, where there is one, from the training split."""
    if config.wide:
        count_ratios(model.get_layer("ngrams"), model.get_layer("ngram_logits"), config.ngram_config(), batches)


def encoder_alone(model: keras.Model) -> keras.Model | None:
    """Return the part of `model`, with its weights, that answers without n-grams; None where there is no such path."""
    names = [layer.name for layer in model.layers]
    if ENCODER_LOGITS not in names:
        return None
    return keras.Model(model.inputs, model.get_layer(ENCODER_LOGITS).output, name=f"{model.name}_encoder")
