"""AdamW that leaves the rows of a table alone which a batch did not use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class LazyAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov & Hutter, 2019) whose work on a looked-up table grows with the batch, not with the table.

    Keras' own turns the gradient of an embedding into a dense one: with 30,000 pieces, or 2^18 buckets of n-grams, that
    is most of a training step on a CPU. Here moments, weights and weight decay of a table change in the rows that the
    batch looked up; every other variable is treated as by Keras. A row that is rarely used so keeps its momentum
    until it is used again, as in the "lazy" Adam of TensorFlow Addons.
    """

    def __init__(self, *args: Any, global_clipnorm: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clip = global_clipnorm  # applied here: Keras would make dense tables of the gradients for it

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Add up the gradients of rows looked up more than once, clip, update."""
        summed = [_sum_rows(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in grads]
        if self._clip is not None:
            summed, _ = tf.clip_by_global_norm(summed, self._clip)
        super().apply(summed, trainable_variables)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Decay what is not a table; tables decay in `update_step`, row by row."""
        super()._apply_weight_decay([variable for variable in variables if not is_table(variable)])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index, rows, values = self._get_variable_index(variable), gradient.indices, gradient.values
        first, second = self._momentums[index].value, self._velocities[index].value
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        rate = learning_rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        momentum = self.beta_1 * tf.gather(first, rows) + (1 - self.beta_1) * values
        velocity = self.beta_2 * tf.gather(second, rows) + (1 - self.beta_2) * tf.square(values)
        first.scatter_update(tf.IndexedSlices(momentum, rows))
        second.scatter_update(tf.IndexedSlices(velocity, rows))
        change = rate * momentum / (tf.sqrt(velocity) + self.epsilon)
        decay = learning_rate * self.weight_decay * tf.gather(variable, rows)
        variable.scatter_sub(tf.IndexedSlices(change + decay, rows))


def is_table(variable: Any) -> bool:
    """Whether rows of the variable are looked up, by the name that its layer gave it."""
    return variable.name.partition(":")[0] in ("embeddings", "learned")


def _sum_rows(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    rows, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)
