"""The optimizer that leaves unused rows alone, against Keras' own and by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.optimizer import LazyAdamW

SETTINGS: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 0.01, "beta_2": 0.99}


def table(rows: int = 4) -> tf.Variable:
    return tf.Variable(np.arange(rows * 2, dtype="float32").reshape(rows, 2), name="embeddings")


def slices(rows: list[int], values: list[list[float]]) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant(values), tf.constant(rows), tf.constant([4, 2]))


def test_a_table_used_whole_moves_as_with_keras_without_momentum():
    own, reference = table(), table()
    lazy, dense = LazyAdamW(**SETTINGS), keras.optimizers.AdamW(**SETTINGS, beta_1=0.0)
    for step in range(3):
        gradient = np.cos(np.arange(8, dtype="float32") + step).reshape(4, 2)
        lazy.apply([slices([0, 1, 2, 3], gradient.tolist())], [own])
        dense.apply([tf.constant(gradient)], [reference])
    np.testing.assert_allclose(own.numpy(), reference.numpy(), rtol=1e-5)


def test_a_row_used_once_goes_as_far_as_its_momentum_would_have_taken_it():
    settings = {**SETTINGS, "weight_decay": 0.0}
    own, reference = table(), table()
    lazy, dense = LazyAdamW(**settings), keras.optimizers.AdamW(**settings)
    for step in range(100):
        used = 1.0 if step == 50 else 0.0
        lazy.apply([slices([1] if used else [0], [[used, used]])], [own])
        dense.apply([tf.constant([[0.0, 0.0], [used, used], [0.0, 0.0], [0.0, 0.0]])], [reference])
    start = table().numpy()[1]
    np.testing.assert_allclose(own.numpy()[1] - start, reference.numpy()[1] - start, rtol=0.15)


def test_rows_that_no_batch_used_stay_as_they_are():
    variable = table()
    optimizer = LazyAdamW(**SETTINGS)
    for _ in range(2):
        optimizer.apply([slices([1, 3], [[1.0, 1.0], [1.0, -1.0]])], [variable])
    before = table().numpy()
    np.testing.assert_array_equal(variable.numpy()[[0, 2]], before[[0, 2]])
    assert (variable.numpy()[[1, 3]] != before[[1, 3]]).all()


def test_a_row_used_twice_gets_the_sum_of_its_gradients():
    twice, once = table(), table()
    LazyAdamW(**SETTINGS, global_clipnorm=100.0).apply([slices([1, 1], [[1.0, 2.0], [3.0, 4.0]])], [twice])
    LazyAdamW(**SETTINGS).apply([slices([1], [[4.0, 6.0]])], [once])
    np.testing.assert_allclose(twice.numpy(), once.numpy(), rtol=1e-6)


@pytest.mark.parametrize("clip", [0.5, 100.0])
def test_gradients_of_tables_and_others_are_clipped_by_their_common_norm(clip):
    # With beta_1 and beta_2 at 0 and a large epsilon a step is the learning rate times the gradient.
    optimizer = LazyAdamW(
        learning_rate=1.0, weight_decay=0.0, beta_1=0.0, beta_2=0.0, epsilon=1e4, global_clipnorm=clip
    )
    rows, dense = table(), tf.Variable([0.0, 0.0], name="kernel")
    optimizer.apply([slices([1, 1], [[1.0, 0.0], [2.0, 0.0]]), tf.constant([0.0, 4.0])], [rows, dense])
    scale = min(1.0, clip / 5)  # norm of (3, 0) and (0, 4) together: 5
    np.testing.assert_allclose(dense.numpy() * 1e4, [0, -4 * scale], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose((rows.numpy() - table().numpy())[1] * 1e4, [-3 * scale, 0], rtol=2e-2)


def test_weight_decay_leaves_what_it_is_told_to_leave():
    optimizer = LazyAdamW(**SETTINGS)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    bias, kernel = tf.Variable([1.0], name="bias"), tf.Variable([1.0], name="kernel")
    optimizer.apply([tf.zeros(1), tf.zeros(1)], [bias, kernel])
    np.testing.assert_allclose([bias.numpy()[0], kernel.numpy()[0]], [1.0, 1 - 0.1 * 0.01])


def test_a_looked_up_table_may_be_left_out_of_weight_decay_too():
    optimizer = LazyAdamW(**SETTINGS)
    optimizer.exclude_from_weight_decay(var_names=["still"])
    still, table = tf.Variable([[1.0]], name="still"), tf.Variable([[1.0]], name="table")
    nothing = tf.IndexedSlices(tf.zeros([1, 1]), tf.constant([0]), tf.constant([1, 1]))
    optimizer.apply([nothing, nothing], [still, table])
    np.testing.assert_allclose([still.numpy()[0, 0], table.numpy()[0, 0]], [1.0, 1 - 0.1 * 0.01])


def test_a_table_that_is_not_looked_up_decays_as_any_other_weight():
    optimizer = LazyAdamW(**SETTINGS)
    positions = tf.Variable([[1.0]], name="embeddings")  # what keras_hub calls its learned positions
    optimizer.apply([tf.zeros([1, 1])], [positions])
    np.testing.assert_allclose(positions.numpy(), [[1 - 0.1 * 0.01]])
