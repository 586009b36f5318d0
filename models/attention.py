"""A Transformer block on plain multiplications, which trains in compiled chunks on a CPU."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import keras
import tensorflow as tf
from keras import layers

from models.compiled import Chunked, hashed_dropout, scramble

LARGE = (
    1e9  # what is taken from the score of a masked position: its weight becomes zero, a row without any stays finite
)
EPSILON = 1e-5  # under the root of layer normalisation
CHUNK_POSITIONS = 1024  # in one call of the compiled code; full batches of every padded length divide into it
COMPILED_FROM = 8192  # positions in a batch: on smaller ones, compiling takes longer than it saves in a training
BASE = 10_000.0  # of the wavelengths of rotary positions

Positions = Literal["none", "rotary", "alibi"]


@keras.saving.register_keras_serializable("valence")
class TransformerBlock(layers.Layer):
    """Self-attention and a feed-forward layer, each normalised before and added to what came in.

    float32[batch, time, dim] and padding_mask bool[batch, time] (True = a piece) -> float32[batch, time, dim].
    `dropout` falls on the attention weights and on both parts before they are added, `inner_dropout` on the hidden
    values of the feed-forward layer. `positions`: `rotary` turns queries and keys by their place (Su et al., 2021,
    "RoFormer: enhanced Transformer with rotary position embedding"), `alibi` lowers scores in proportion to the
    distance (Press et al., 2022, "Train short, test long", here on both sides), `none` leaves positions to others.

    Source: Vaswani et al., 2017, "Attention is all you need"; normalised first as in Xiong et al., 2020, "On layer
    normalization in the Transformer architecture". Evaluation, and so an export, is plain operations.
    """

    def __init__(
        self,
        intermediate_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        inner_dropout: float = 0.0,
        positions: Positions = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.inner_dropout = inner_dropout
        self.positions = positions
        self.supports_masking = True
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: tuple, *_: Any) -> None:
        """Make the weights: kernels as Glorot & Bengio, 2010, have them, biases zero.

        Raises:
            ValueError: the heads do not divide the dimensions evenly, or into odd sizes that rotary cannot turn.
        """
        dim, wide = input_shape[-1], self.intermediate_dim
        if dim % self.num_heads or (self.positions == "rotary" and dim // self.num_heads % 2):
            raise ValueError(f"num_heads is {self.num_heads}: it must cut {dim} dimensions into equal, even parts")
        self.attention_norm = self._norm("attention_norm", dim)
        self.query_key_value = self._dense("query_key_value", dim, 3 * dim, _each_glorot)
        self.attention_output = self._dense("attention_output", dim, dim)
        self.feedforward_norm = self._norm("feedforward_norm", dim)
        self.widen = self._dense("widen", dim, wide)
        self.narrow = self._dense("narrow", wide, dim)

    def _norm(self, name: str, dim: int) -> tuple:
        return (
            self.add_weight(shape=(dim,), initializer="ones", name=f"{name}_gamma"),
            self.add_weight(shape=(dim,), initializer="zeros", name=f"{name}_beta"),
        )

    def _dense(self, name: str, dim: int, units: int, initializer: Any = "glorot_uniform") -> tuple:
        return (
            self.add_weight(shape=(dim, units), initializer=initializer, name=f"{name}_kernel"),
            self.add_weight(shape=(units,), initializer="zeros", name=f"{name}_bias"),
        )

    def call(self, states: Any, padding_mask: Any, training: bool = False) -> Any:
        """Attend, then feed forward."""
        rates = (self.dropout, self.inner_dropout) if training else (0.0, 0.0)
        stages = _stages(self.num_heads, self.positions, *rates)
        weights = [tuple(tf.convert_to_tensor(weight) for weight in group) for group in self._weights()]
        if not training:
            return _plain(stages, states, padding_mask, weights, tf.constant(0, tf.uint32))
        key = tf.cast(self.seed_generator.next(), tf.uint32)
        seed = scramble(scramble(key[0]) + key[1])
        if self.compute_dtype != "float32" or tf.config.list_logical_devices("GPU"):
            return _plain(stages, states, padding_mask, weights, seed)
        return tf.cond(
            tf.size(padding_mask) >= COMPILED_FROM,
            lambda: _compiled(stages, states, padding_mask, weights, seed),
            lambda: _plain(stages, states, padding_mask, weights, seed),
        )

    def _weights(self) -> tuple:
        """The weights of each stage, in the order of `_stages`."""
        project = (*self.attention_norm, *self.query_key_value)
        widen = (*self.attention_output, *self.feedforward_norm, *self.widen)
        return project, (), widen, self.narrow

    def compute_output_shape(self, states_shape: tuple, *_: Any) -> tuple:
        """Shape of the states."""
        return states_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        own = {
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "inner_dropout": self.inner_dropout,
            "positions": self.positions,
        }
        return {**super().get_config(), **own}


def _plain(stages: tuple, states: Any, padding_mask: Any, weights: list, seed: Any) -> Any:
    """The block as one graph of plain operations, for any device."""
    project, attend, widen, narrow = (stage.compute for stage in stages)
    shape, dim = tf.shape(states), states.shape[-1]
    flat = tf.reshape(states, [-1, dim])
    projected = tf.reshape(project((flat,), (), weights[0], seed), [shape[0], shape[1], 3 * dim])
    attended = tf.reshape(attend((projected,), (_mask_bias(padding_mask),), (), seed), [-1, dim])
    widened = widen((flat, attended), (), weights[2], seed)
    return tf.reshape(narrow((widened,), (), weights[3], seed), shape)


def _compiled(stages: tuple, states: Any, padding_mask: Any, weights: list, seed: Any) -> Any:
    """The same in chunks: of positions where each stands alone, of whole rows where they attend to each other."""
    project, attend, widen, narrow = stages
    shape, dim = tf.shape(states), states.shape[-1]
    positions, rows = shape[0] * shape[1], tf.maximum(CHUNK_POSITIONS // shape[1], 1)
    flat = _chunks(tf.reshape(states, [-1, dim]), CHUNK_POSITIONS)
    projected = project((flat,), (), weights[0], seed)
    by_row = tf.reshape(tf.reshape(projected, [-1, 3 * dim])[:positions], [shape[0], shape[1], 3 * dim])
    attended = attend((_chunks(by_row, rows),), (_chunks(_mask_bias(padding_mask), rows),), (), seed)
    attended = _chunks(tf.reshape(attended, [-1, dim])[:positions], CHUNK_POSITIONS)
    widened = widen((flat, attended), (), weights[2], seed)
    return tf.reshape(tf.reshape(narrow((widened,), (), weights[3], seed), [-1, dim])[:positions], shape)


def _chunks(values: Any, size: Any) -> Any:
    """[n, ...] -> [chunks, size, ...], zeros at the end."""
    shape = tf.shape(values)
    rest = values.shape.rank - 1
    padded = tf.pad(values, [[0, -shape[0] % size], *([[0, 0]] * rest)])
    chunked = tf.reshape(padded, tf.concat([[-1, size], shape[1:]], axis=0))
    known = size if isinstance(size, int) else None
    return tf.ensure_shape(chunked, [None, known, *values.shape[1:]])


@functools.cache
def _stages(num_heads: int, positions: Positions, dropout: float, inner_dropout: float) -> tuple[Chunked, ...]:
    """The four parts of a block: project, attend, widen, narrow. Blocks of one kind share what is compiled.

    Each ends in a large multiplication, which its gradient need not repeat. Each takes `(rows, given, weights, seed)`,
    see `Chunked`: positions as float32[n, dim], for `attend` whole rows as float32[batch, time, 3 * dim].
    """

    def project(rows: tuple, given: tuple, weights: tuple, seed: Any) -> Any:
        gamma, beta, kernel, bias = weights
        return tf.matmul(_normalised(rows[0], gamma, beta), kernel) + bias

    def attend(rows: tuple, given: tuple, weights: tuple, seed: Any) -> Any:
        return _attend(rows[0], given[0], num_heads, positions, dropout, seed)

    def widen(rows: tuple, given: tuple, weights: tuple, seed: Any) -> Any:
        """Add what was attended to; return that and, beside it, the feed-forward layer's hidden values."""
        kernel, bias, gamma, beta, wide_kernel, wide_bias = weights
        states = rows[0] + hashed_dropout(tf.matmul(rows[1], kernel) + bias, dropout, seed + 1)
        return tf.concat([states, tf.matmul(_normalised(states, gamma, beta), wide_kernel) + wide_bias], axis=1)

    def narrow(rows: tuple, given: tuple, weights: tuple, seed: Any) -> Any:
        kernel, bias = weights
        states, hidden = tf.split(rows[0], [kernel.shape[1], kernel.shape[0]], axis=1)
        hidden = hashed_dropout(tf.nn.gelu(hidden), inner_dropout, seed + 2)
        return states + hashed_dropout(tf.matmul(hidden, kernel) + bias, dropout, seed + 3)

    return Chunked(project), Chunked(attend), Chunked(widen), Chunked(narrow)


def _attend(projected: Any, mask_bias: Any, num_heads: int, positions: Positions, dropout: float, seed: Any) -> Any:
    """float32[batch, time, 3 * dim] queries, keys, values; float32[batch, time] to add -> float32[batch, time, dim]."""
    batch, time = projected.shape[0] or tf.shape(projected)[0], projected.shape[1] or tf.shape(projected)[1]
    dim = projected.shape[2] // 3
    parts = tf.reshape(projected, [batch, time, 3, num_heads, dim // num_heads])
    query, key, value = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]), num=3)
    query = query * (dim // num_heads) ** -0.5
    if positions == "rotary":
        query, key = _rotated(query), _rotated(key)
    # Scores in float32 also where the rest is not: float16 cannot hold what is taken from a masked one.
    scores = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32) + mask_bias[:, None, None, :]
    if positions == "alibi":
        scores += _distance_bias(num_heads, time)
    weights = hashed_dropout(tf.cast(tf.nn.softmax(scores), value.dtype), dropout, seed)
    return tf.reshape(tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3]), [batch, time, dim])


def _rotated(values: Any) -> Any:
    """Turn each pair of dimensions of float32[batch, heads, time, size] by an angle in proportion to the place."""
    time, size = values.shape[2] or tf.shape(values)[2], values.shape[3]
    speed = BASE ** (-tf.range(0, size, 2, dtype=tf.float32) / size)
    angle = tf.range(time, dtype=tf.float32)[:, None] * speed[None, :]
    cosine, sine = tf.cast(tf.cos(angle), values.dtype), tf.cast(tf.sin(angle), values.dtype)
    first, second = tf.split(values, 2, axis=-1)
    return tf.concat([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def _distance_bias(num_heads: int, time: Any) -> Any:
    """-slope * distance float32[heads, time, time]; the slopes fall from 2^(-8 / heads) to 2^-8."""
    place = tf.range(time, dtype=tf.float32)
    slopes = tf.constant([2.0 ** (-8.0 * (head + 1) / num_heads) for head in range(num_heads)])
    return -slopes[:, None, None] * tf.abs(place[:, None] - place[None, :])


def _mask_bias(padding_mask: Any) -> Any:
    return (tf.cast(padding_mask, tf.float32) - 1.0) * LARGE


def _normalised(values: Any, gamma: Any, beta: Any) -> Any:
    """Layer normalisation (Ba et al., 2016) over the last axis, in float32."""
    values32 = tf.cast(values, tf.float32)
    centred = values32 - tf.reduce_mean(values32, axis=-1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(centred * centred, axis=-1, keepdims=True) + EPSILON)
    return tf.cast(centred * scale, values.dtype) * gamma + beta


def _each_glorot(shape: tuple, dtype: Any = None) -> Any:
    """Glorot's uniform for three kernels side by side, each as if it stood alone."""
    dim = shape[0]
    limit = math.sqrt(6.0 / (dim + shape[1] // 3))
    return keras.random.uniform(shape, -limit, limit, dtype=dtype)
