"""FAVOR+: softmax attention estimated with random features, at a cost that grows with the length, not its square.

Source: Choromanski et al., 2021, "Rethinking attention with Performers".
"""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from models.layers import LARGE


def draw_directions(num_features: int, dim: int, chance: np.random.Generator, *, orthogonal: bool = True) -> np.ndarray:
    """Draw the random directions of the features, float32[num_features, dim]; each is standard normal by itself.

    With `orthogonal`, `dim` at a time stand at right angles to each other: still normal one by one, so that the
    estimate stays unbiased, and spread out more evenly, so that it varies less.
    """
    if not orthogonal:
        return chance.standard_normal((num_features, dim)).astype("float32")
    blocks = []
    for _ in range(-(-num_features // dim)):
        rotation, triangle = np.linalg.qr(chance.standard_normal((dim, dim)))
        # LAPACK picks the signs; without this not every rotation would be equally likely.
        blocks.append((rotation * np.sign(np.diag(triangle))).T)
    directions = np.concatenate(blocks)[:num_features]
    norms = np.sqrt(chance.chisquare(dim, num_features))  # as long as normal vectors are
    return (directions * norms[:, None]).astype("float32")


def log_features(vectors: Any, directions: Any) -> Any:
    """Logarithms of positive features: float32[..., time, dim], float32[..., features, dim] -> [..., time, features].

    The exponentials of those of q and of k, multiplied and summed over the features, are exp(q.k) on average over
    the directions.
    """
    projected = ops.matmul(vectors, ops.swapaxes(directions, -1, -2))
    half_square = ops.sum(ops.square(vectors), axis=-1, keepdims=True) / 2
    return projected - half_square - 0.5 * float(np.log(directions.shape[-2]))


def favor_attention(queries: Any, keys: Any, values: Any, padding_mask: Any, directions: Any) -> Any:
    """Estimate softmax(queries keys^T / sqrt(dim)) values without ever making that matrix.

    float32[batch, heads, time, dim] three times, padding_mask bool[batch, time] (True = a piece) and directions
    float32[heads, features, dim] -> float32[batch, heads, time, dim]. Masked keys weigh nothing; a row without any
    piece gives zeros.

    Each feature is divided by the largest that a key of the row has there, and the query's is multiplied by it: the
    product stays, and no exponential overflows. Then the features of a query are divided by the largest, which its
    normalisation cancels. So one key counts at least 1 in the sum of a query's weights, which cannot underflow
    however long the vectors are, and needs no small number added that would bias it.
    """
    scale = queries.shape[-1] ** -0.25
    mask = padding_mask[:, None, :, None]
    of_keys = ops.where(mask, log_features(keys * scale, directions), -LARGE)
    largest = ops.stop_gradient(ops.max(of_keys, axis=-2, keepdims=True))
    of_keys = ops.where(mask, ops.exp(of_keys - largest), 0.0)
    of_queries = log_features(queries * scale, directions) + largest
    of_queries = ops.exp(of_queries - ops.stop_gradient(ops.max(of_queries, axis=-1, keepdims=True)))
    summed = ops.matmul(ops.swapaxes(of_keys, -1, -2), values)
    total = ops.matmul(of_queries, ops.swapaxes(ops.sum(of_keys, axis=-2, keepdims=True), -1, -2))
    return ops.matmul(of_queries, summed) / ops.maximum(total, 1.0)  # below 1 only where all is masked


@keras.saving.register_keras_serializable("valence")
class RandomDirections(keras.initializers.Initializer):
    """Directions for each head, float32[heads, features, dim]; without a seed they follow that of the run."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = random.randrange(2**31) if seed is None else seed  # where Keras' own initializers take theirs

    def __call__(self, shape: tuple[int, int, int], dtype: Any = None) -> Any:
        """Draw them, each head's anew."""
        heads, num_features, dim = shape
        chance = np.random.default_rng(self.seed)
        drawn = np.stack([draw_directions(num_features, dim, chance) for _ in range(heads)])
        return ops.convert_to_tensor(drawn, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this initializer again."""
        return {"seed": self.seed}


@keras.saving.register_keras_serializable("valence")
class FavorAttention(keras.layers.Layer):
    """Self-attention of several heads, estimated with `num_features` random features each.

    float32[batch, time, dim] and padding_mask bool[batch, time] (True = a piece) -> float32[batch, time, dim]. The
    directions are a weight that is not trained: saved, copied and exported with the others.
    """

    def __init__(self, num_heads: int, num_features: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_features = num_features
        self.supports_masking = True  # the mask goes by hand; what comes out has the same steps

    def build(self, states_shape: tuple, padding_mask_shape: tuple | None = None) -> None:
        """Make the projections and draw the directions."""
        dim = states_shape[-1]
        self.projections = layers.Dense(3 * dim, name="queries_keys_values", dtype=self.dtype_policy)
        self.projections.build(states_shape)
        self.output_projection = layers.Dense(dim, name="output", dtype=self.dtype_policy)
        self.output_projection.build(states_shape)
        self.directions = self.add_weight(
            shape=(self.num_heads, self.num_features, dim // self.num_heads),
            initializer=RandomDirections(),
            trainable=False,
            name="directions",
        )

    def call(self, states: Any, padding_mask: Any) -> Any:
        """Attend."""
        batch, time, dim = ops.shape(states)[0], ops.shape(states)[1], states.shape[-1]
        # Exponentials of half precision would be too coarse.
        projected = ops.cast(self.projections(states), "float32")
        split = ops.reshape(projected, (batch, time, 3, self.num_heads, dim // self.num_heads))
        queries, keys, values = ops.unstack(ops.transpose(split, (2, 0, 3, 1, 4)), 3)
        directions = ops.cast(self.directions, "float32")
        attended = favor_attention(queries, keys, values, padding_mask, directions)
        joined = ops.reshape(ops.transpose(attended, (0, 2, 1, 3)), (batch, time, dim))
        return self.output_projection(ops.cast(joined, self.compute_dtype))

    def compute_output_shape(self, states_shape: tuple, padding_mask_shape: tuple | None = None) -> tuple:
        """Shape of the states, unchanged."""
        return states_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "num_heads": self.num_heads, "num_features": self.num_features}
