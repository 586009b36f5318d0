"""A running average of the weights while they are fitted."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

UPDATES = 10  # of the average within the steps that it reaches back over: every step would cost time for nothing


class WeightAverage(keras.callbacks.Callback):
    """Keeps an exponential running average of the weights, and puts it in their place to be validated and kept.

    From the start of a validation to the next epoch the model has the averaged weights, so a callback that keeps the
    best weights at an epoch's end, put after this one, keeps averaged ones. `steps` is how far back the average
    reaches. Source: Polyak & Juditsky, 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, steps: float) -> None:
        super().__init__()
        self._every = max(1, round(steps / UPDATES))
        self._keep = max(0.0, 1 - self._every / max(steps, 1e-9))
        self._step = 0
        self._updates = 0
        self._swapped = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make room for the averages."""
        self._weights = [weight.value for weight in self.model.trainable_variables]
        self._averages = [tf.Variable(weight, trainable=False) for weight in self._weights]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Go on training with the weights themselves."""
        self._use_averages(False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the average towards the weights."""
        self._step += 1
        if self._step % self._every == 0:
            self._move()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validate what would be kept."""
        if not self._updates:  # an epoch cut short: better the last step's weights than those of the start
            self._move()
        self._use_averages(True)

    def _move(self) -> None:
        # The mean of what has been seen until that is more than the average reaches back over: the weights that
        # training started from are chance and have no part in it.
        self._update(tf.constant(min(self._keep, self._updates / (self._updates + 1)), tf.float32))
        self._updates += 1

    # Eager on purpose: a tf.function of every training would be traced anew, for a handful of calls.
    def _update(self, keep: tf.Tensor) -> None:
        for weight, average in zip(self._weights, self._averages, strict=True):
            average.assign(keep * average + (1 - keep) * weight)

    def _use_averages(self, wanted: bool) -> None:
        if wanted != self._swapped:
            self._swap()
            self._swapped = wanted

    def _swap(self) -> None:
        for weight, average in zip(self._weights, self._averages, strict=True):
            kept = tf.identity(weight)
            weight.assign(average)
            average.assign(kept)
