"""AdamW that leaves the rows of a table alone which a batch did not use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class LazyAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov & Hutter, 2019) whose work on a looked-up table grows with the batch, not with the table.

    Keras' own turns the gradient of an embedding into a dense one: with 30,000 pieces, or 2^20 buckets of n-grams, that
    is most of a training step on a CPU. Here the weights, second moments and weight decay of a table change in the rows
    that the batch looked up; every other variable is treated as by Keras.

    Rows have no momentum. Under Keras a row that was looked up goes on moving by its momentum while no batch uses it,
    ten times as far in all as in its first step; without momentum it goes that far at once. With momentum that waits
    for the row's next batch, as in the "lazy" Adam of TensorFlow Addons, rare pieces learn ten times slower.
    """

    def __init__(self, *args: Any, global_clipnorm: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clip = global_clipnorm  # applied here: Keras would make dense tables of the gradients for it
        self._tables: set[str] = set()  # keys of the variables whose rows were looked up

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Add up the gradients of rows looked up more than once, clip, update."""
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        looked_up = [isinstance(gradient, tf.IndexedSlices) for gradient in grads]
        self._tables = {self._var_key(variable) for variable, table in zip(variables, looked_up, strict=True) if table}
        summed = [_sum_rows(gradient) if table else gradient for gradient, table in zip(grads, looked_up, strict=True)]
        if self._clip is not None:
            summed, _ = tf.clip_by_global_norm(summed, self._clip)
        super().apply(summed, trainable_variables)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Decay what is not a table; tables decay in `update_step`, row by row."""
        super()._apply_weight_decay([one for one in variables if self._var_key(one) not in self._tables])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        rows, values = gradient.indices, gradient.values
        moments = self._velocities[self._get_variable_index(variable)].value
        rate = learning_rate * tf.sqrt(1 - self.beta_2 ** tf.cast(self.iterations.value + 1, variable.dtype))
        second = self.beta_2 * tf.gather(moments, rows) + (1 - self.beta_2) * tf.square(values)
        moments.scatter_update(tf.IndexedSlices(second, rows))
        change = rate * values / (tf.sqrt(second) + self.epsilon)
        if self._use_weight_decay(variable):
            change += learning_rate * self.weight_decay * tf.gather(variable, rows)
        variable.scatter_sub(tf.IndexedSlices(change, rows))


def _sum_rows(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    rows, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)
