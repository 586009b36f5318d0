"""The n-gram model beside an encoder, in one graph: what the encoder cannot learn from few texts, counts know."""

from __future__ import annotations

from typing import Any, Self

import keras
from pydantic import Field

from models.config import ModelConfig
from models.linear import MULTIPLIERS, LinearConfig, build_linear

NGRAMS = "linear"  # the name that `build_linear` gives


class WideConfig(ModelConfig, frozen=True, extra="forbid"):
    """Whether an encoder has a model of n-grams beside it, and how large."""

    wide: bool = True
    """Let `linear`, trained by itself, answer beside the encoder. Without it the encoder answers alone."""
    wide_ngrams: int = Field(2, ge=1, le=len(MULTIPLIERS))
    wide_buckets: int = Field(2**20, ge=2)
    wide_epochs: int | None = Field(None, ge=1)
    """Passes that the n-grams learn for; None: by size, at most twice those given for the encoder."""

    def settled(self, steps_per_pass: int) -> Self:
        """Return the configuration with all its epochs: few for the encoder mean a quick try of the n-grams too."""
        by_size = self.ngram_config().settled(steps_per_pass).epochs or 1
        epochs = self.wide_epochs or (min(by_size, 2 * self.epochs) if self.epochs else by_size)
        return super().settled(steps_per_pass).model_copy(update={"wide_epochs": epochs})

    def ngram_config(self) -> LinearConfig:
        """Return the configuration of the model beside the encoder."""
        return LinearConfig(ngrams=self.wide_ngrams, num_buckets=self.wide_buckets, epochs=self.wide_epochs)


@keras.saving.register_keras_serializable("valence")
class WeightedSum(keras.layers.Layer):
    """The sum of several models' logits, each times a weight that does not learn by gradient.

    A list of float32[batch, num_classes] -> float32[batch, num_classes]. `app.fusion` sets the weights on validation.
    """

    def build(self, input_shape: list[tuple]) -> None:
        """Make the weights: equal ones until they are set."""
        self.logit_weights = self.add_weight(
            shape=(len(input_shape),), initializer="ones", trainable=False, name="logit_weights"
        )

    def call(self, logits: list[Any]) -> Any:
        """Add up."""
        return sum(one * self.logit_weights[place] for place, one in enumerate(logits))

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        """Shape of the logits."""
        return input_shape[0]


def beside_ngrams(encoder: keras.Model, config: WideConfig, vocabulary_size: int) -> keras.Model:
    """Put a model of n-grams beside a built encoder: the same input, logits float32[batch, num_classes], one graph.

    Source: Cheng et al., 2016, "Wide & deep learning for recommender systems", but each part learns from a loss of its
    own: trained on the sum of both, the encoder learned only what the n-grams left, and their common answer was worse
    than that of the n-grams alone (docs/log.md).
    """
    num_classes = encoder.output_shape[-1]
    ngrams = build_linear(
        config.ngram_config(), vocabulary_size=vocabulary_size, num_classes=num_classes, sequence_length=0
    )
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    logits = WeightedSum(dtype="float32", name="logits")([encoder(token_ids), ngrams(token_ids)])
    return keras.Model(token_ids, logits, name=encoder.name)


def encoder_and_ngrams(model: keras.Model) -> tuple[keras.Model, keras.Model | None]:
    """Return the encoder and the n-grams that `beside_ngrams` put together; of another model, itself and None."""
    if not isinstance(model.layers[-1], WeightedSum):
        return model, None
    encoder, ngrams = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return (encoder, ngrams) if ngrams.name == NGRAMS else (ngrams, encoder)
