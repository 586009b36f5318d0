"""An LSTM in an export: TensorFlow's operation for whole sequences, and a loop that is faster for batches on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

# Steps in one turn of the loop, which costs as much as a small operation. More were no faster, and are slow to trace.
STEPS = 4
# From so many rows on the loop is taken. For fewer, alone on two cores, the one operation is faster (docs/log.md).
LOOP_ROWS = 64


def run_portable(layer: layers.Layer, states: Any, padding_mask: Any, token_ids: Any = None) -> Any:
    """The states of a built `keras.layers.LSTM`, or of `Bidirectional` around one, on operations of TensorFlow alone.

    `states` float32[batch, time, dim], `padding_mask` bool[batch, time] (True = a piece, padding on the right) ->
    float32[batch, time, width]. States at padding say nothing.

    There are two roads. One operation for whole sequences, `BlockLSTM`, has a kernel for a CPU and for a GPU. The other
    is a loop, for large batches on a CPU. It needs `token_ids` int32[batch, time], which promise that equal ids have
    equal states, wherever they stand: a batch uses a piece many times over, and the loop multiplies each once. On a GPU
    it would start thousands of small operations. Which road is taken is decided where and when the graph runs.

    Through the loop no gradient with respect to `states` is right: it goes to a piece's first place.
    """

    def in_one_operation() -> Any:
        return _in_one_operation(layer, tf.transpose(states, [1, 0, 2]), padding_mask)

    def by_pieces() -> Any:
        return _by_pieces(layer, states, padding_mask, token_ids)

    if token_ids is None:
        return tf.transpose(in_one_operation(), [1, 0, 2])
    many = (tf.shape(states)[0] >= LOOP_ROWS) & (tf.shape(states)[1] > 0)
    device = tf.raw_ops.DeviceIndex(device_names=["CPU"])  # 0 on a CPU, 1 on anything else
    found = tf.switch_case(device, [lambda: tf.cond(many, by_pieces, in_one_operation)], default=in_one_operation)
    return tf.transpose(found, [1, 0, 2])


def _in_one_operation(layer: layers.Layer, by_time: Any, padding_mask: Any) -> Any:
    """States float32[time, batch, width] by `BlockLSTM`."""
    if not isinstance(layer, layers.Bidirectional):
        return _block(layer, by_time)
    order = _rows_turned_around(padding_mask)
    flipped = _block(layer.backward_layer, _reordered(by_time, order))
    return tf.concat([_block(layer.forward_layer, by_time), _reordered(flipped, order)], axis=-1)


def _by_pieces(layer: layers.Layer, states: Any, padding_mask: Any, token_ids: Any) -> Any:
    """States float32[time, batch, width] by a loop over time that looks up what each piece adds to the gates."""
    different, places = tf.unique(tf.reshape(token_ids, [-1]))
    first = tf.math.unsorted_segment_min(tf.range(tf.size(places)), places, tf.size(different))
    vectors = tf.gather(tf.reshape(states, [-1, states.shape[2]]), first)
    by_time = tf.transpose(tf.reshape(places, tf.shape(token_ids)))
    if not isinstance(layer, layers.Bidirectional):
        return _loop(layer, vectors, by_time)
    order = _rows_turned_around(padding_mask)
    turned = tf.reshape(tf.gather(tf.reshape(by_time, [-1]), order), tf.shape(by_time))
    flipped = _loop(layer.backward_layer, vectors, turned)
    return tf.concat([_loop(layer.forward_layer, vectors, by_time), _reordered(flipped, order)], axis=-1)


def _loop(layer: layers.LSTM, vectors: Any, places: Any) -> Any:
    """States float32[time, batch, units] of a built layer; step [time, batch] reads `vectors` at its place."""
    units, of_gates = layer.units, layer.cell
    weights = (of_gates.kernel, of_gates.recurrent_kernel, of_gates.bias)
    kernel, recurrent, bias = (tf.convert_to_tensor(weight) for weight in weights)
    factor = tf.constant(tanh_factors(units))
    table = tf.matmul(vectors, kernel * factor) + bias * factor
    turned = tf.transpose(recurrent * factor)  # this way around the multiplication is faster
    time, rows = tf.shape(places)[0], tf.shape(places)[1]
    turns = (time + STEPS - 1) // STEPS
    places = tf.reshape(tf.pad(places, [[0, turns * STEPS - time], [0, 0]]), [turns, STEPS, rows])

    def turn(number: Any, hidden: Any, cell: Any, kept: Any) -> tuple:
        found = []
        for inputs in tf.unstack(tf.gather(table, places[number])):
            gates = tf.tanh(inputs + tf.matmul(hidden, turned, transpose_b=True))
            enter, forget, candidate, leave = tf.split(gates, 4, axis=1)
            cell = 0.5 * ((forget + 1.0) * cell + (enter + 1.0) * candidate)
            hidden = (0.5 * leave + 0.5) * tf.tanh(cell)
            found.append(hidden)
        return number + 1, hidden, cell, kept.write(number, tf.stack(found))

    start = tf.zeros([rows, units])
    kept = tf.TensorArray(tf.float32, turns, element_shape=[STEPS, None, units])
    # One turn waits for the other anyway; to look for turns that do not would cost time.
    *_, kept = tf.while_loop(lambda number, *_: number < turns, turn, (0, start, start, kept), parallel_iterations=1)
    return tf.reshape(kept.stack(), [turns * STEPS, rows, units])[:time]


def tanh_factors(units: int) -> np.ndarray:
    """float32[4 * units]: what gates' inputs, and their tanh, are multiplied by so that one tanh serves all gates.

    sigmoid(z) = tanh(z / 2) / 2 + 1 / 2; the candidate is a tanh already.
    """
    return np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), units)


def _block(layer: layers.LSTM, by_time: Any) -> Any:
    """The states of a built `keras.layers.LSTM` on float32[time, batch, dim], padding at the end left unmasked."""
    cell = layer.cell
    weights = tf.concat([tf.convert_to_tensor(cell.kernel), tf.convert_to_tensor(cell.recurrent_kernel)], axis=0)
    nothing, no_peephole = tf.zeros([tf.shape(by_time)[1], layer.units]), tf.zeros([layer.units])
    # Not BlockLSTMV2, which has the gates in Keras' order: its gradient in TensorFlow 2.21 takes them in this one's.
    found = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.shape(by_time, tf.int64)[0],
        x=by_time,
        cs_prev=nothing,
        h_prev=nothing,
        w=_in_its_order(weights),
        wci=no_peephole,
        wcf=no_peephole,
        wco=no_peephole,
        b=_in_its_order(tf.convert_to_tensor(cell.bias)),
        forget_bias=0.0,
        cell_clip=-1.0,
    )
    return found.h


def _rows_turned_around(padding_mask: Any) -> Any:
    """Where each step of a row read from its end is found: int32[time * batch] into [time, batch] laid out flat."""
    lengths = tf.reduce_sum(tf.cast(padding_mask, tf.int32), axis=1)[None, :]
    rows, time = tf.range(tf.shape(padding_mask)[0])[None, :], tf.range(tf.shape(padding_mask)[1])[:, None]
    taken = tf.where(time < lengths, lengths - 1 - time, time)
    return tf.reshape(taken * tf.shape(padding_mask)[0] + rows, [-1])


def _reordered(by_time: Any, order: Any) -> Any:
    """float32[time, batch, width] in another order, by whole steps: `tf.reverse_sequence` goes number by number."""
    width = by_time.shape[2]
    return tf.reshape(tf.gather(tf.reshape(by_time, [-1, width]), order), tf.shape(by_time))


def _in_its_order(gates: Any) -> Any:
    """Turn Keras' input, forget, candidate, output in the last axis into input, candidate, forget, output."""
    enter, forget, candidate, leave = tf.split(gates, 4, axis=-1)
    return tf.concat([enter, candidate, forget, leave], axis=-1)
