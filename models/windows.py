"""Long texts by windows: a network that reads so many pieces at once reads a text of any length."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

LAYER = "windows"
WINDOWS_AT_ONCE = 64  # outside training, so that the memory that a long text takes does not grow with it


class Windows(NamedTuple):
    """The windows of a batch's rows, one row's after the other's.

    token_ids int32[windows, width]; row int32[windows], the row that a window is of; weight float32[windows], its
    share of the row's new pieces: those of a row sum to 1, and a row's only window has exactly 1.
    """

    token_ids: tf.Tensor
    row: tf.Tensor
    weight: tf.Tensor


def cut_windows(token_ids: tf.Tensor, window: int, stride: int) -> Windows:
    """Cut rows int32[batch, time], right-padded with 0, into windows of up to `window` pieces.

    Each starts with the row's first piece (`[CLS]`), then `window - 1` pieces of the row, from `stride` pieces further
    on than those of the window before. The last one holds the row's end; none holds padding alone, however far
    batch-mates stretch the batch, but for the only window of a row without pieces.
    """
    places = window - 1
    time = tf.shape(token_ids)[1]
    pieces = tf.maximum(tf.math.count_nonzero(token_ids, axis=1, dtype=tf.int32) - 1, 0)  # without [CLS]
    count = 1 + tf.maximum(pieces - places + stride - 1, 0) // stride
    row = tf.repeat(tf.range(tf.shape(token_ids)[0]), count)
    start = stride * tf.ragged.range(count).flat_values
    pieces_of_row = tf.gather(pieces, row)
    position = start[:, None] + tf.range(1, tf.minimum(time, window))[None, :]
    flat = tf.gather(tf.reshape(token_ids, [-1]), row[:, None] * time + tf.minimum(position, time - 1))
    body = tf.where(position <= pieces_of_row[:, None], flat, 0)
    windows = tf.concat([tf.gather(token_ids[:, :1], row), body], axis=1)
    end = tf.minimum(start + places, pieces_of_row)
    new = end - tf.where(start == 0, 0, start - stride + places)
    weight = new / tf.maximum(pieces_of_row, 1)
    return Windows(windows, row, tf.cast(tf.where(pieces_of_row > 0, weight, 1.0), tf.float32))


@keras.saving.register_keras_serializable("valence")
class ReadWindows(keras.layers.Wrapper):
    """The logits of a network for each window of a row, averaged by the new pieces that each window holds.

    token_ids int32[batch, time], 0 = padding -> logits float32[batch, num_classes], those of the network itself for
    rows that fit into one window.
    """

    def __init__(self, layer: keras.Model, window: int, stride: int, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.window = window
        self.stride = stride
        self.supports_jit = False  # how many windows there are is known only from the pieces

    def call(self, token_ids: Any, training: bool = False) -> Any:
        """Cut, read, average."""
        windows = cut_windows(token_ids, self.window, self.stride)
        logits = self.layer(windows.token_ids, training=True) if training else self._in_parts(windows.token_ids)
        weighted = logits * tf.cast(windows.weight, logits.dtype)[:, None]
        return tf.math.unsorted_segment_sum(weighted, windows.row, tf.shape(token_ids)[0])

    def _in_parts(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Logits of all windows, read in equal parts of at most `WINDOWS_AT_ONCE`."""
        count, width = tf.shape(token_ids)[0], tf.shape(token_ids)[1]
        parts = tf.maximum(1, -(-count // WINDOWS_AT_ONCE))
        size = -(-count // parts)
        padded = tf.pad(token_ids, [[0, parts * size - count], [0, 0]])
        logits = tf.map_fn(
            lambda part: self.layer(part, training=False),
            tf.reshape(padded, [parts, size, width]),
            fn_output_signature=tf.TensorSpec([None, self.layer.output_shape[-1]], self.layer.outputs[0].dtype),
            parallel_iterations=1,
        )
        return tf.reshape(logits, [parts * size, self.layer.output_shape[-1]])[:count]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Shape of the logits."""
        return (input_shape[0], self.layer.output_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "window": self.window, "stride": self.stride}


def read_in_windows(model: keras.Model, window: int, stride: int) -> keras.Model:
    """Wrap a network of MODELS, which reads up to `window` pieces: the same inputs, outputs and weights, any length."""
    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    logits = ReadWindows(model, window, stride, name=LAYER)(token_ids)
    return keras.Model(token_ids, logits, name=model.name)


def without_windows(model: keras.Model) -> keras.Model:
    """Return the network that `read_in_windows` wrapped; one that it did not wrap as it is."""
    last = model.layers[-1]
    return last.layer if isinstance(last, ReadWindows) else model
