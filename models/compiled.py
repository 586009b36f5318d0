"""Run a computation on the rows of a batch piece by piece, compiled, and compute it again for its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

GOLDEN_RATIO = 0x9E3779B1  # an odd constant whose multiples spread over all 32 bits (Knuth's multiplicative hashing)


class Chunked:
    """`compute(rows, given, weights, seed) -> tensor`, mapped over the first axis of `rows` and `given`.

    On a CPU this beats one large graph twice: XLA fuses what stands between the multiplications, and a chunk stays in
    the processor's cache. Two chunks run at a time, one on each core. The gradient computes the chunk again from its
    inputs, instead of keeping every value in between, so choose computations that end in their largest
    multiplication: that one is not repeated, its result is not needed.

    `rows` get gradients, `given` do not, `weights` are shared by all chunks. `seed` uint32[] differs from chunk to
    chunk; the gradient sees the forward pass's. Chunks of one shape are compiled once.
    """

    def __init__(self, compute: Callable[[tuple, tuple, tuple, Any], Any]) -> None:
        self.compute = compute
        self._forward = tf.function(compute, jit_compile=True, autograph=False)

        def gradients(rows: tuple, given: tuple, weights: tuple, seed: Any, upstream: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch((rows, weights))
                result = compute(rows, given, weights, seed)
            return tape.gradient(result, (rows, weights), output_gradients=upstream)

        self._backward = tf.function(gradients, jit_compile=True, autograph=False)

    def __call__(self, rows: Sequence[Any], given: Sequence[Any], weights: Sequence[Any], seed: Any) -> Any:
        """Return the results of all chunks, `[chunks, ...]`."""
        count = len(rows)
        given = tuple(given)

        @tf.custom_gradient
        def run(*tensors: Any) -> Any:
            rows, weights = tensors[:count], tensors[count:]

            def gradient(upstream: Any) -> tuple:
                return self._all_backward(rows, given, weights, seed, upstream)

            return self._all_forward(rows, given, weights, seed), gradient

        return run(*rows, *weights)

    def _all_forward(self, rows: tuple, given: tuple, weights: tuple, seed: Any) -> Any:
        chunks = tf.shape(rows[0])[0]

        def step(chunk: Any, kept: Any) -> tuple:
            result = self._forward(*_at(chunk, rows, given), weights, _chunk_seed(seed, chunk))
            return chunk + 1, kept.write(chunk, result)

        kept = tf.TensorArray(rows[0].dtype, chunks)
        _, kept = tf.while_loop(lambda chunk, _: chunk < chunks, step, (tf.constant(0), kept), parallel_iterations=4)
        return kept.stack()

    def _all_backward(self, rows: tuple, given: tuple, weights: tuple, seed: Any, upstream: Any) -> tuple:
        chunks = tf.shape(rows[0])[0]

        def step(chunk: Any, kept: tuple, totals: tuple) -> tuple:
            found, added = self._backward(*_at(chunk, rows, given), weights, _chunk_seed(seed, chunk), upstream[chunk])
            kept = tuple(array.write(chunk, value) for array, value in zip(kept, found, strict=True))
            return chunk + 1, kept, tuple(total + more for total, more in zip(totals, added, strict=True))

        kept = tuple(tf.TensorArray(row.dtype, chunks, element_shape=row.shape[1:]) for row in rows)
        loop = (tf.constant(0), kept, tuple(tf.zeros_like(weight) for weight in weights))
        _, kept, totals = tf.while_loop(lambda chunk, *_: chunk < chunks, step, loop, parallel_iterations=4)
        return (*(array.stack() for array in kept), *totals)


def _at(chunk: Any, rows: tuple, given: tuple) -> tuple[tuple, tuple]:
    return tuple(row[chunk] for row in rows), tuple(value[chunk] for value in given)


def _chunk_seed(seed: Any, chunk: Any) -> Any:
    return scramble(seed + tf.cast(chunk + 1, tf.uint32) * tf.constant(GOLDEN_RATIO, tf.uint32))


def scramble(bits: Any) -> Any:
    """Hash uint32[...] -> uint32[...]: every bit of the answer depends on every bit given.

    Source: the 32-bit finaliser "lowbias32" (Wellons, 2018, "Prospecting for hash functions"). XLA turns it into a
    dozen vector instructions, where TensorFlow's Philox generator takes tens of times that for each number.
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32)))
        bits = bits * tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32)))


def hashed_dropout(values: Any, rate: float, seed: Any) -> Any:
    """Set a share `rate` of the values to 0, which ones depends on `seed` uint32[]; divide the others by 1 - rate."""
    if rate == 0:
        return values
    shape = tf.shape(values)
    numbers = tf.cast(tf.range(tf.reduce_prod(shape)), tf.uint32) * tf.constant(GOLDEN_RATIO, tf.uint32)
    kept = scramble(numbers + seed) >= tf.constant(round(rate * 2**32), tf.uint32)
    return tf.where(tf.reshape(kept, shape), values / (1.0 - rate), 0.0)
