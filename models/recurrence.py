"""An LSTM that is fast on a CPU: compiled steps to train, an export without them, weights as Keras lays them out."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf
from keras import layers

from models.portable_recurrence import run_portable, tanh_factors

# Steps in one call of the compiled code. Time is padded to a multiple of it, so that XLA compiles once for each number
# of rows, whatever the lengths. All lengths that the pipeline pads to are multiples; longer chunks were no faster.
CHUNK = 16
# Rows are padded to a multiple of this, for the same reason: every bucket of lengths ends with a smaller batch.
ROWS = 64
# The rows are run in halves, at the same time: a step's multiplication is too small for two threads to share.
PARTS = 2


@keras.saving.register_keras_serializable("valence")
class FastLSTM(layers.Layer):
    """One LSTM over time, or two in opposite directions with their states side by side.

    float32[batch, time, dim] and padding_mask bool[batch, time] (True = a piece, padding on the right) ->
    float32[batch, time, units], or 2 * units when bidirectional. States at padding are zeros on the compiled road and
    say nothing on the others: pool over the mask.

    Weights, their order and their start are those of `keras.layers.LSTM`, or `Bidirectional` around it, and so are
    the results, to rounding. With `use_cudnn="auto"` a GPU, where one is seen, takes Keras' road with cuDNN, a CPU the
    compiled one below; `False` takes that of `models.portable_recurrence`, for export. Source: Hochreiter &
    Schmidhuber, 1997, "Long short-term memory"; the forget gate's bias of one is from Gers et al., 2000, "Learning to
    forget".
    """

    def __init__(
        self, units: int, bidirectional: bool = True, use_cudnn: Literal["auto", False] = "auto", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.bidirectional = bidirectional
        self.use_cudnn = use_cudnn
        self.supports_masking = True
        lstm = layers.LSTM(units, return_sequences=True, use_cudnn=use_cudnn, name="lstm")
        self.keras_layer = layers.Bidirectional(lstm, name="both") if bidirectional else lstm

    def build(self, input_shape: tuple, *_: Any) -> None:
        """Make the weights, through Keras' layer."""
        self.keras_layer.build(input_shape)

    @property
    def fast(self) -> bool:
        """Whether the compiled road is taken: on a CPU, in float32, unless a graph for export is wanted."""
        return (
            self.use_cudnn == "auto" and self.compute_dtype == "float32" and not tf.config.list_logical_devices("GPU")
        )

    def call(self, states: Any, padding_mask: Any, token_ids: Any = None, training: bool = False) -> Any:
        """Run over time. `token_ids` int32[batch, time] promise that, outside training, equal ids have equal states."""
        if self.use_cudnn is False and self.compute_dtype == "float32":
            # Step by step, outside of a graph, a loop is slow, and whoever looks at states there wants equal bits.
            told = None if training or tf.executing_eagerly() else token_ids
            found = run_portable(self.keras_layer, states, padding_mask, told)
            return tf.ensure_shape(found, self.compute_output_shape(states.shape))
        if not self.fast or tf.executing_eagerly():  # step by step there is no graph around the compiled part
            return self.keras_layer(states, mask=padding_mask)
        return self._compiled(states, padding_mask)

    def _compiled(self, states: Any, padding_mask: Any) -> Any:
        if not self.bidirectional:
            return _run(self.keras_layer, states, padding_mask)
        # Flipped, a row starts with its padding. A padded step leaves a state of zeros behind, so the first real
        # step starts from nothing, as it should, and no row has to be turned around by its own length.
        flipped = _run(self.keras_layer.backward_layer, tf.reverse(states, [1]), tf.reverse(padding_mask, [1]))
        return tf.concat([_run(self.keras_layer.forward_layer, states, padding_mask), tf.reverse(flipped, [1])], -1)

    def compute_output_shape(self, states_shape: tuple, *_: Any) -> tuple:
        """Shape of the states."""
        return (*states_shape[:2], self.units * (2 if self.bidirectional else 1))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {"units": self.units, "bidirectional": self.bidirectional, "use_cudnn": self.use_cudnn}
        return {**super().get_config(), **own}


def _run(layer: layers.LSTM, states: Any, padding_mask: Any) -> Any:
    """The states of a built `keras.layers.LSTM` on float32[batch, time, dim], zeros where the mask is False."""
    shape = tf.shape(states)
    padding, more_rows = (-shape[1]) % CHUNK, (-shape[0]) % ROWS
    by_time = tf.pad(tf.transpose(states, [1, 0, 2]), [[0, padding], [0, more_rows], [0, 0]])
    mask = tf.pad(tf.transpose(tf.cast(padding_mask, tf.float32)), [[0, padding], [0, more_rows]])
    rows, dim = shape[0] + more_rows, states.shape[2]
    cell = layer.cell
    weights = [tf.convert_to_tensor(weight) for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)]
    chunks, chunk_masks = tf.reshape(by_time, [-1, CHUNK, rows, dim]), tf.reshape(mask, [-1, CHUNK, rows, 1])
    parts = zip(tf.split(chunks, PARTS, axis=2), tf.split(chunk_masks, PARTS, axis=2), strict=True)
    hidden = tf.concat([recurrence(*part, *weights) for part in parts], axis=2)
    hidden = tf.reshape(hidden, [-1, rows, layer.units])[: shape[1], : shape[0]]
    return tf.ensure_shape(tf.transpose(hidden, [1, 0, 2]), [states.shape[0], states.shape[1], layer.units])


@tf.custom_gradient
def recurrence(inputs: Any, mask: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
    """The hidden states float32[chunks, CHUNK, batch, units] of an LSTM.

    `inputs` float32[chunks, CHUNK, batch, dim] in time-major order; `mask` float32[chunks, CHUNK, batch, 1], 0 sets the
    state to zeros after that step; `kernel` float32[dim, 4 * units], `recurrent` float32[units, 4 * units] and `bias`
    float32[4 * units] with the gates in Keras' order: input, forget, candidate, output.

    TensorFlow's own gradient of a loop keeps every value of every step and multiplies for the weights' gradient at
    each. This one keeps gates and cells, and what has to wait for no step is one multiplication over all of them. Its
    largest arrays are of all gates: one kept, two more on the way back.
    """
    hidden, cells, gates = _forward(inputs, mask, kernel, recurrent, bias)

    def gradient(upstream: Any) -> tuple:
        found = _backward(upstream, inputs, mask, hidden, cells, gates, kernel, recurrent)
        return found[0], None, *found[1:]

    return hidden, gradient


@tf.function(autograph=False)
def _forward(inputs: Any, mask: Any, kernel: Any, recurrent: Any, bias: Any) -> tuple:
    """Return the hidden states, and lists of the cells' and the gates' values, an entry a chunk."""
    chunks, rows, units = tf.shape(inputs)[0], tf.shape(inputs)[2], recurrent.shape[0]
    factor = tf.constant(tanh_factors(units))
    # The inputs' part of all steps in one multiplication: only the state's part has to wait for the step before.
    projected = tf.matmul(tf.reshape(inputs, [-1, kernel.shape[0]]), kernel * factor) + bias * factor
    projected, scaled = tf.reshape(projected, [chunks, CHUNK, rows, 4 * units]), recurrent * factor

    def step(chunk: Any, hidden: Any, cell: Any, *kept: Any) -> tuple:
        found = _chunk_forward(projected[chunk], mask[chunk], hidden, cell, scaled)
        kept = tuple(_set(entries, chunk, value) for entries, value in zip(kept, found, strict=True))
        return (chunk + 1, _like(start, found[0][-1]), _like(start, found[1][-1]), *kept)

    start = tf.zeros([rows, units])
    kept = [_reserve(chunks, width) for width in (units, units, 4 * units)]
    _, _, _, hidden, cells, gates = tf.while_loop(lambda chunk, *_: chunk < chunks, step, (0, start, start, *kept))
    return _stack(hidden, units), cells, gates


@tf.function(autograph=False)
def _backward(
    upstream: Any, inputs: Any, mask: Any, hidden: Any, cells: Any, gates: Any, kernel: Any, recurrent: Any
) -> tuple:
    """Return the gradients of inputs, kernel, recurrent kernel and bias, given that of the hidden states."""
    chunks, rows, units, dim = tf.shape(inputs)[0], tf.shape(inputs)[2], recurrent.shape[0], kernel.shape[0]
    turned = tf.transpose(recurrent)

    def step(chunk: Any, for_hidden: Any, for_cell: Any, for_bias: Any, for_gates: Any) -> tuple:
        before, known = tf.maximum(chunk - 1, 0), tf.cast(chunk > 0, tf.float32)
        started = _get(cells, before, units)[-1] * known
        values = (upstream[chunk], mask[chunk], _get(cells, chunk, units), _get(gates, chunk, 4 * units), started)
        for_hidden, for_cell, found, added = _chunk_backward(*values, for_hidden, for_cell, turned)
        for_hidden, for_cell = _like(start, for_hidden), _like(start, for_cell)
        return chunk - 1, for_hidden, for_cell, for_bias + added, _set(for_gates, chunk, found)

    start = tf.zeros([rows, units])
    loop = (chunks - 1, start, start, tf.zeros([4 * units]), _reserve(chunks, 4 * units))
    _, _, _, for_bias, for_gates = tf.while_loop(lambda chunk, *_: chunk >= 0, step, loop)
    # No step needs these, so each is one multiplication over all steps.
    for_gates = tf.reshape(_stack(for_gates, 4 * units), [-1, 4 * units])
    for_inputs = tf.reshape(tf.matmul(for_gates, kernel, transpose_b=True), tf.shape(inputs))
    for_kernel = tf.matmul(tf.reshape(inputs, [-1, dim]), for_gates, transpose_a=True)
    earlier = tf.pad(tf.reshape(hidden, [-1, units])[:-rows], [[rows, 0], [0, 0]])
    for_recurrent = tf.matmul(earlier, for_gates, transpose_a=True)
    return for_inputs, for_kernel, for_recurrent, for_bias


@tf.function(jit_compile=True, autograph=False)
def _chunk_forward(projected: Any, mask: Any, hidden: Any, cell: Any, recurrent: Any) -> tuple:
    """CHUNK steps: hidden states, cells and gates, float32[CHUNK, batch, width] each.

    `projected` float32[CHUNK, batch, 4 * units] is the inputs' part of the gates, with the bias; it and `recurrent` are
    multiplied by `tanh_factors` already. `hidden` and `cell` float32[batch, units] are from the step before.
    """
    units = recurrent.shape[0]
    factor = tanh_factors(units)

    def step(time: Any, hidden: Any, cell: Any, *kept: Any) -> tuple:
        gates = tf.tanh(projected[time] + tf.matmul(hidden, recurrent)) * factor + (1.0 - factor)
        enter, forget, candidate, leave = tf.split(gates, 4, axis=1)
        cell = (forget * cell + enter * candidate) * mask[time]
        hidden = leave * tf.tanh(cell)  # also zeros at padding, where the cell is
        kept = tuple(array.write(time, value) for array, value in zip(kept, (hidden, cell, gates), strict=True))
        return (time + 1, hidden, cell, *kept)

    kept = [_array(width) for width in (units, units, 4 * units)]
    loop = (0, hidden, cell, *kept)
    _, _, _, *kept = tf.while_loop(lambda time, *_: time < CHUNK, step, loop, maximum_iterations=CHUNK)
    return tuple(array.stack() for array in kept)


@tf.function(jit_compile=True, autograph=False)
def _chunk_backward(
    upstream: Any,
    mask: Any,
    cells: Any,
    gates: Any,
    cell_before: Any,
    for_hidden: Any,
    for_cell: Any,
    turned: Any,
) -> tuple:
    """The gradients of the state that a chunk started from, of its gates' inputs, and their sum, that of the bias.

    `upstream` float32[CHUNK, batch, units] is the gradient of the chunk's hidden states; `cells` and `gates` are what
    `_chunk_forward` returned, `cell_before` the cell that it started from; `for_hidden` and `for_cell`
    float32[batch, units] are what the chunk after it handed back; `turned` is the recurrent kernel, transposed.
    """
    units = turned.shape[1]
    # For all steps at once: by how much a gate's input moves the cell or, in the last gate, the state.
    enter, forget, candidate, leave = tf.split(gates, 4, axis=2)
    earlier, squashed = tf.concat([cell_before[None], cells[:-1]], axis=0), tf.tanh(cells)
    through = leave * (1.0 - squashed * squashed) * mask
    of_gates = [
        candidate * enter * (1.0 - enter),
        earlier * forget * (1.0 - forget),
        enter * (1.0 - candidate * candidate),
        squashed * leave * (1.0 - leave),  # zeros at padding, where the cell is zero
    ]
    slopes = tf.concat(of_gates, axis=2)

    def step(time: Any, for_hidden: Any, for_cell: Any, kept: Any) -> tuple:
        for_hidden = for_hidden + upstream[time]
        for_cell = for_cell * mask[time] + for_hidden * through[time]
        for_gates = tf.concat([for_cell, for_cell, for_cell, for_hidden], axis=1) * slopes[time]
        return time - 1, tf.matmul(for_gates, turned), for_cell * forget[time], kept.write(time, for_gates)

    loop = (CHUNK - 1, for_hidden, for_cell, _array(4 * units))
    _, for_hidden, for_cell, kept = tf.while_loop(lambda time, *_: time >= 0, step, loop, maximum_iterations=CHUNK)
    found = kept.stack()
    return for_hidden, for_cell, found, tf.reduce_sum(found, axis=[0, 1])


def _like(start: Any, state: Any) -> Any:
    """A state with the static shape of that which the loop began with, as `tf.while_loop` wants it.

    The compiled chunk may not tell it: a call that knows its number of rows takes an earlier trace that did not.
    """
    return tf.ensure_shape(state, start.shape)


def _array(width: int) -> tf.TensorArray:
    return tf.TensorArray(tf.float32, CHUNK, element_shape=[None, width])


# A TensorArray cannot leave the function it was made in; the list that it is made of can, without a copy.
def _reserve(chunks: Any, width: int) -> Any:
    return tf.raw_ops.TensorListReserve(element_shape=[CHUNK, -1, width], num_elements=chunks, element_dtype=tf.float32)


def _set(entries: Any, index: Any, value: Any) -> Any:
    return tf.raw_ops.TensorListSetItem(input_handle=entries, index=index, item=value)


def _get(entries: Any, index: Any, width: int) -> Any:
    return tf.raw_ops.TensorListGetItem(
        input_handle=entries, index=index, element_shape=[CHUNK, -1, width], element_dtype=tf.float32
    )


def _stack(entries: Any, width: int) -> Any:
    return tf.raw_ops.TensorListStack(input_handle=entries, element_shape=[CHUNK, -1, width], element_dtype=tf.float32)
