"""Hashed n-grams + logistic regression: the floor that a deep model has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from pydantic import Field

from models.config import ModelConfig, Passes, Trial

# One for each place in an n-gram, so that order counts.
MULTIPLIERS = (1, 40_503, 2_654_435, 97_561, 15_485_863)


class LinearConfig(ModelConfig, frozen=True, extra="forbid"):
    """Sizes of the n-gram classifier."""

    learning_rate: float = Field(0.03, gt=0)
    ngrams: int = Field(2, ge=1, le=len(MULTIPLIERS))
    """Longest n-gram, in pieces: 2 takes single pieces and pairs."""
    num_buckets: int = Field(2**20, ge=2)
    """Rows of the two tables that the n-grams are hashed into; each holds a float for every class."""
    min_rows: int = Field(2, ge=1)
    """Training rows that must hold a bucket before it says anything: one alone would be learned by heart."""
    smoothing: float = Field(1.0, gt=0)
    """Added to every count of a bucket before the ratio is taken."""
    base_weight: float = Field(0.3, ge=0)
    """Weight that every n-gram's log-count ratio has before any training."""

    PASSES: ClassVar[Passes] = Passes(steps=1000, fewest=4, most=20)

    @classmethod
    def suggest(cls, trial: Trial) -> dict[str, Any]:
        """Return the settings of one trial of `valence tune`."""
        return {
            **super().suggest(trial),
            "ngrams": trial.suggest_int("ngrams", 1, 3),
            "min_rows": trial.suggest_int("min_rows", 1, 4),
            "smoothing": trial.suggest_float("smoothing", 0.1, 10.0, log=True),
            "base_weight": trial.suggest_float("base_weight", 0.0, 1.0),
        }


@keras.saving.register_keras_serializable("valence")
class HashedNGrams(keras.layers.Layer):
    """The set of n-grams of a row, each as the number of its bucket.

    int32[batch, time], 0 = padding -> int32[batch, ngrams * time]; bucket 0 stands for nothing: padding, an n-gram
    that would reach into padding, and every repetition in the row, so that a long text does not shout.
    Source: Weinberger et al., 2009, "Feature hashing for large scale multitask learning".
    """

    def __init__(self, ngrams: int, num_buckets: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ngrams = ngrams
        self.num_buckets = num_buckets

    def call(self, token_ids: Any) -> Any:
        """Hash every n-gram, then keep each once."""
        ids = ops.cast(token_ids, "int64")
        found, hashed = [], ops.zeros_like(ids)
        present = ids > 0
        for n in range(self.ngrams):
            shifted = ops.pad(ids, [[0, 0], [0, n]])[:, n:]
            hashed = hashed + (shifted + 1) * MULTIPLIERS[n]
            present = present & (shifted > 0)
            found.append(ops.where(present, 1 + hashed % (self.num_buckets - 1), 0))
        return self._unique(ops.sort(ops.concatenate(found, axis=1), axis=1))

    def _unique(self, buckets: Any) -> Any:
        before = ops.pad(buckets, [[0, 0], [1, 0]])[:, :-1]
        return ops.cast(ops.where(buckets == before, 0, buckets), "int32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "ngrams": self.ngrams, "num_buckets": self.num_buckets}


@keras.saving.register_keras_serializable("valence")
class LogCountRatios(keras.layers.Layer):
    """What the buckets say for each class: the sum of (base_weight + learned weight) * log-count ratio.

    int32[batch, n] buckets, 0 = nothing -> logits float32[batch, num_classes]. The sum is divided by the root of the
    number of buckets that are present, so that long texts are no surer than short ones for their length. The ratios
    are counted by `adapt_ratios` from the training split; before that they are one: plain logistic regression.
    """

    def __init__(self, num_buckets: int, num_classes: int, base_weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_buckets = num_buckets
        self.num_classes = num_classes
        self.base_weight = base_weight

    def build(self, input_shape: tuple) -> None:
        """Make the table of ratios (counted) and the table of weights (learned)."""
        shape = (self.num_buckets, self.num_classes)
        self.ratios = self.add_weight(shape=shape, initializer="ones", trainable=False, name="ratios")
        self.learned = self.add_weight(shape=shape, initializer="zeros", name="learned")
        self.bias = self.add_weight(shape=(self.num_classes,), initializer="zeros", name="bias")

    def call(self, buckets: Any) -> Any:
        """Look up and sum."""
        present = ops.cast(ops.not_equal(buckets, 0), self.compute_dtype)[:, :, None]
        ratios = ops.take(self.ratios, buckets, axis=0) * present
        learned = ops.take(self.learned, buckets, axis=0)
        length = ops.sqrt(ops.maximum(ops.sum(present, axis=1), 1.0))
        return ops.sum((self.base_weight + learned) * ratios, axis=1) / length + self.bias

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {
            "num_buckets": self.num_buckets,
            "num_classes": self.num_classes,
            "base_weight": self.base_weight,
        }
        return {**super().get_config(), **own}


def build_linear(config: LinearConfig, *, vocabulary_size: int, num_classes: int, sequence_length: int) -> keras.Model:
    """Token ids int32[batch, time], 0 = padding -> logits float32[batch, num_classes].

    Source: Wang & Manning, 2012, "Baselines and bigrams: simple, good sentiment and topic classification", with
    softmax regression in place of their support vector machine. The other sizes change nothing here.
    """
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    buckets = HashedNGrams(config.ngrams, config.num_buckets, name="ngrams")(token_ids)
    # float32 in any precision: it adds up, which is what bfloat16 is bad at, and multiplies no matrices.
    logits = LogCountRatios(config.num_buckets, num_classes, config.base_weight, dtype="float32", name="logits")(
        buckets
    )
    return keras.Model(token_ids, logits, name="linear")


def adapt_ratios(model: keras.Model, config: LinearConfig, batches: Iterable[tuple[Any, Any]]) -> None:
    """Set the log-count ratios of a model made by `build_linear` from the training split.

    The ratio of a bucket for a class is log((p / |p|) / (q / |q|)), with p and q the smoothed numbers of rows inside
    and outside the class that hold the bucket. `batches` yields (token_ids int32[batch, time], label_ids int32[batch]).
    """
    ngrams, logits = model.get_layer("ngrams"), model.get_layer("logits")
    rows = np.zeros((config.num_buckets, logits.num_classes), np.float64)
    for token_ids, label_ids in batches:
        buckets = ops.convert_to_numpy(ngrams(token_ids))
        np.add.at(rows, (buckets, np.asarray(label_ids)[:, None]), 1)
    rows[0] = 0
    inside = rows + config.smoothing
    outside = rows.sum(axis=1, keepdims=True) - rows + config.smoothing
    ratios = np.log((inside / inside.sum(axis=0)) / (outside / outside.sum(axis=0)))
    ratios[rows.sum(axis=1) < config.min_rows] = 0
    logits.ratios.assign(ratios)
