"""The fast LSTM against Keras' own, and what of it may stand in an exported graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from models import portable_recurrence
from models.portable_recurrence import LOOP_ROWS, STEPS
from models.recurrence import CHUNK, FastLSTM

ROWS, TIME, DIM, UNITS = 4, CHUNK + 5, 6, 8
LENGTHS = np.array([TIME, 3, CHUNK, 0])
# Rows in both halves of what is run side by side and padding in the second, and chunks with one on either side.
MANY, LONG = 70, 2 * CHUNK + 5
MASK = np.arange(TIME)[None, :] < LENGTHS[:, None]
TOLERANCE = 1e-5


def inputs(seed: int = 0, rows: int = ROWS, time: int = TIME) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=(rows, time, DIM)), tf.float32)


def built(bidirectional: bool, **arguments: object) -> FastLSTM:
    keras.utils.set_random_seed(3)
    layer = FastLSTM(UNITS, bidirectional, **arguments)
    layer.build((None, None, DIM))
    return layer


def traced(layer: FastLSTM) -> tf.types.experimental.GenericFunction:
    """The layer inside a graph, as everywhere but in a notebook: outside of one Keras' own steps are taken."""
    return tf.function(lambda states, mask: layer(states, mask), autograph=False)


def keras_own(bidirectional: bool) -> keras.layers.Layer:
    lstm = keras.layers.LSTM(UNITS, return_sequences=True, use_cudnn=False)
    layer = keras.layers.Bidirectional(lstm) if bidirectional else lstm
    layer.build((None, None, DIM))
    return layer


def states_and_gradients(layer: keras.layers.Layer, states: tf.Tensor, **mask: tf.Tensor) -> list[np.ndarray]:
    """States where the mask is True, then the gradients, all through one graph as in training."""
    weights = [variable.value for variable in layer.trainable_variables]
    (present,) = mask.values()

    @tf.function
    def run(states: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(states)
            found = layer(states, **mask) * tf.cast(present, tf.float32)[:, :, None]
            direction = tf.reshape(tf.cos(tf.range(tf.size(found), dtype=tf.float32)), tf.shape(found))
            loss = tf.reduce_sum(found * direction)
        return [found, *tape.gradient(loss, [states, *weights])]

    return [value.numpy() for value in run(states)]


@pytest.mark.parametrize("use_cudnn", ["auto", False])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_and_all_gradients_are_those_of_keras(bidirectional, use_cudnn):
    layer, reference = built(bidirectional, use_cudnn=use_cudnn), keras_own(bidirectional)
    reference.set_weights(layer.get_weights())
    assert layer.fast == (use_cudnn == "auto")
    mask = tf.constant(np.arange(LONG)[None, :] < np.random.default_rng(1).integers(0, LONG + 1, MANY)[:, None])
    found = states_and_gradients(layer, inputs(rows=MANY, time=LONG), padding_mask=mask)
    expected = states_and_gradients(reference, inputs(rows=MANY, time=LONG), mask=mask)
    assert [value.shape for value in found] == [value.shape for value in expected]
    assert len(found) == (8 if bidirectional else 5)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(theirs).max() > 0.01
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * max(1, np.abs(theirs).max()))


def test_weights_start_as_those_of_keras():
    layer = built(bidirectional=True)
    keras.utils.set_random_seed(3)
    for ours, theirs in zip(layer.get_weights(), keras_own(bidirectional=True).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_states_at_padding_are_zeros_on_the_fast_road():
    states = traced(built(bidirectional=True))(inputs(), tf.constant(MASK)).numpy()
    assert (states[~MASK] == 0).all()
    assert (states[MASK] != 0).all()


def test_a_known_number_of_rows_follows_an_unknown_one():
    # TensorFlow hands a call of known shapes the trace of unknown ones, where there is one already. Two layers that
    # differ in what they read, not in their units, share the compiled chunks and nothing else.
    units = 11  # used nowhere else, so that nothing has been traced for it yet
    wide, layer = FastLSTM(units), FastLSTM(units)
    wide.build((None, None, 2 * DIM))
    layer.build((None, None, DIM))

    def run(layer: FastLSTM, states: tf.Tensor, mask: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            found = layer(states, mask)
        return [found, tape.gradient(found, layer.trainable_variables[0].value)]

    mask = tf.constant(MASK)
    signature = [tf.TensorSpec([None, None, 2 * DIM]), tf.TensorSpec([None, None], tf.bool)]
    tf.function(lambda *values: run(wide, *values), signature, autograph=False)(tf.ones([ROWS, TIME, 2 * DIM]), mask)
    states, gradient = tf.function(lambda *values: run(layer, *values), autograph=False)(inputs(), mask)
    assert np.abs(gradient).max() > 0.01
    np.testing.assert_allclose(states[MASK], layer(inputs(), mask)[MASK], atol=TOLERANCE)


@pytest.mark.parametrize("use_cudnn", ["auto", False])
@pytest.mark.parametrize("extra", [1, CHUNK, 2 * CHUNK - 5])
def test_padding_changes_no_state(extra, use_cudnn):
    run, short = traced(built(bidirectional=True, use_cudnn=use_cudnn)), inputs()
    long = tf.concat([short, tf.ones([ROWS, extra, DIM])], axis=1)
    mask = np.pad(MASK, [(0, 0), (0, extra)])
    states = run(long, tf.constant(mask)).numpy()[:, :TIME]
    np.testing.assert_allclose(states[MASK], run(short, tf.constant(MASK)).numpy()[MASK], atol=1e-6)


def test_the_graph_for_export_gives_the_same_in_one_operation():
    layer, portable = built(bidirectional=True), built(bidirectional=True, use_cudnn=False)
    portable.set_weights(layer.get_weights())
    mask = tf.constant(MASK)

    @tf.function(input_signature=[tf.TensorSpec([None, None, DIM]), tf.TensorSpec([None, None], tf.bool)])
    def run(states: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return portable(states, mask)

    difference = (run(inputs(), mask) - layer(inputs(), mask)).numpy()[MASK]
    assert np.abs(difference).max() < TOLERANCE
    graph = str(run.get_concrete_function().graph.as_graph_def())
    assert "XlaMustCompile" not in graph
    assert "Cudnn" not in graph
    assert graph.count('op: "BlockLSTM"') == 2
    assert "While" not in graph


def by_pieces(layer: FastLSTM, vectors: np.ndarray) -> tf.types.experimental.ConcreteFunction:
    """The layer, told which pieces it reads, as it stands in an export: token ids -> states."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def run(token_ids: tf.Tensor) -> tf.Tensor:
        return layer(tf.gather(tf.constant(vectors), token_ids), token_ids != 0, token_ids=token_ids)

    return run.get_concrete_function()


def some_ids(rows: int, time: int) -> np.ndarray:
    """Rows of any length of six pieces, the first as long as `time`."""
    chance = np.random.default_rng(2)
    lengths = chance.integers(0, time + 1, rows)
    lengths[0] = time
    return np.where(np.arange(time) < lengths[:, None], chance.integers(1, 7, (rows, time)), 0).astype("int32")


VECTORS = np.random.default_rng(4).normal(size=(7, DIM)).astype("float32")


@pytest.mark.parametrize("rows", [LOOP_ROWS, LOOP_ROWS - 1])
@pytest.mark.parametrize("time", [1, STEPS, 2 * STEPS + 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_by_pieces_are_those_of_keras(bidirectional, time, rows):
    layer, ids = built(bidirectional, use_cudnn=False), some_ids(rows, time)
    reference = keras_own(bidirectional)
    reference.set_weights(layer.get_weights())
    found = by_pieces(layer, VECTORS)(tf.constant(ids)).numpy()
    expected = reference(VECTORS[ids], mask=ids != 0).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[ids != 0], expected[ids != 0], atol=TOLERANCE)


def test_many_rows_take_the_loop_and_fewer_or_empty_ones_do_not(monkeypatch):
    def nothing(layer: object, states: tf.Tensor, *_: object) -> tf.Tensor:
        rows, time = tf.unstack(tf.shape(states)[:2])
        return tf.zeros([time, rows, UNITS])

    monkeypatch.setattr(portable_recurrence, "_by_pieces", nothing)
    run = by_pieces(built(False, use_cudnn=False), VECTORS)
    assert not run(tf.constant(some_ids(LOOP_ROWS, TIME))).numpy().any()
    assert run(tf.constant(some_ids(LOOP_ROWS - 1, TIME))).numpy().any()
    assert run(tf.zeros([LOOP_ROWS, 0], tf.int32)).shape == (LOOP_ROWS, 0, UNITS)


def test_outside_of_a_graph_no_loop_goes_step_by_step(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the loop ran")

    monkeypatch.setattr(portable_recurrence, "_by_pieces", refuse)
    layer, ids = built(False, use_cudnn=False), some_ids(LOOP_ROWS, TIME)
    assert layer(VECTORS[ids], tf.constant(ids != 0), token_ids=tf.constant(ids)).shape == (LOOP_ROWS, TIME, UNITS)
    with pytest.raises(AssertionError, match="the loop ran"):
        by_pieces(layer, VECTORS)


def test_a_row_has_the_same_states_whoever_is_beside_it_and_however_far_it_is_padded():
    run, ids = by_pieces(built(True, use_cudnn=False), VECTORS), some_ids(2 * LOOP_ROWS, TIME)
    together = run(tf.constant(ids)).numpy()
    for other in (ids[: LOOP_ROWS - 1], np.pad(ids[:LOOP_ROWS], [(0, 0), (0, 2 * STEPS + 1)])):
        present = other[:, :TIME] != 0
        found = run(tf.constant(other)).numpy()[:, :TIME]
        np.testing.assert_allclose(found[present], together[: len(other)][present], atol=1e-6)


def test_the_loop_runs_for_a_batch_on_a_cpu_and_the_one_operation_elsewhere():
    # No GPU is here: that none takes the loop is seen from what the graph asks before it does.
    graph = by_pieces(built(False, use_cudnn=False), np.ones((7, DIM), "float32")).graph.as_graph_def()
    (asked,) = (node for node in graph.node if node.op == "DeviceIndex")
    assert list(asked.attr["device_names"].list.s) == [b"CPU"]
    (chosen,) = (node for node in graph.node if node.op in ("Case", "StatelessCase"))
    assert chosen.input[0] == asked.name
    bodies = {function.signature.name: function for function in graph.library.function}

    def operations(name: str) -> set[str]:
        """What a function computes, in the functions that it calls too."""
        nodes = bodies[name].node_def
        called = [attr.func.name for node in nodes for attr in node.attr.values() if attr.func.name]
        return {node.op for node in nodes}.union(*map(operations, called))

    on_cpu, elsewhere = (operations(branch.name) for branch in chosen.attr["branches"].list.func)
    assert {"StatelessWhile", "BlockLSTM"} <= on_cpu
    assert "BlockLSTM" in elsewhere
    assert not elsewhere & {"While", "StatelessWhile", "If", "StatelessIf"}


def test_in_training_no_piece_is_taken_for_another():
    # As many rows as would take the loop; after dropout, say: equal ids, other states.
    layer, ids = built(False, use_cudnn=False), tf.ones([LOOP_ROWS, TIME], tf.int32)
    states = inputs(rows=LOOP_ROWS)
    run = tf.function(lambda states, ids: layer(states, ids != 0, token_ids=ids, training=True), autograph=False)
    np.testing.assert_allclose(run(states, ids), layer.keras_layer(states), atol=TOLERANCE)


def test_the_operation_of_an_export_has_a_kernel_for_every_device():
    found = {kernel.device_type for kernel in kernels.get_registered_kernels_for_op("BlockLSTM").kernel}
    # A build for GPUs holds their kernels whether there is one or not.
    assert found == ({"CPU", "GPU"} if tf.test.is_built_with_cuda() else {"CPU"})


def test_a_gpu_takes_the_road_of_keras(monkeypatch):
    layer = built(bidirectional=False)
    assert layer.fast
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a device"] if kind == "GPU" else [])
    assert not layer.fast


def test_another_precision_takes_the_road_of_keras():
    assert not built(bidirectional=False, dtype="mixed_bfloat16").fast


def test_a_saved_layer_comes_back(tmp_path):
    states, mask = keras.Input((None, DIM)), keras.Input((None,), dtype="bool")
    model = keras.Model([states, mask], FastLSTM(UNITS, name="encoder")(states, mask))
    assert model.output_shape == (None, None, 2 * UNITS)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model([inputs(), tf.constant(MASK)]), again([inputs(), tf.constant(MASK)]))
