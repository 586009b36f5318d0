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
        self._swapped = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the average at the weights of the start."""
        self._weights = [weight.value for weight in self.model.trainable_variables]
        self._averages = [tf.Variable(weight, trainable=False) for weight in self._weights]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Go on training with the weights themselves."""
        self._use_averages(False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the average towards the weights."""
        self._step += 1
        if self._step % self._every == 0:
            self._update()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validate what would be kept."""
        self._use_averages(True)

    @tf.function
    def _update(self) -> None:
        for weight, average in zip(self._weights, self._averages, strict=True):
            average.assign(self._keep * average + (1 - self._keep) * weight)

    def _use_averages(self, wanted: bool) -> None:
        if wanted != self._swapped:
            self._swap()
            self._swapped = wanted

    @tf.function
    def _swap(self) -> None:
        for weight, average in zip(self._weights, self._averages, strict=True):
            kept = tf.identity(weight)
            weight.assign(average)
            average.assign(kept)
