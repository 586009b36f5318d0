"""What an encoder learns from texts without labels: to predict pieces that it does not see.

Two objectives. `masked` (Devlin et al., 2019, "BERT: Pre-training of deep bidirectional Transformers"): some pieces are
hidden and predicted from both sides. `directions` (Peters et al., 2018, "Deep contextualized word representations"):
what has read the text from the left predicts the next piece, what has read it from the right the one before. The second
needs states that see nothing of the piece they predict; `reading_directions` finds that out on the graph itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

PAD_ID, MASK_ID, FIRST_LEARNED_ID = 0, 1, 3
"""A hidden piece becomes `[UNK]`: the vocabulary has no piece of its own for that, and piece dropout uses it too."""
STATES = "states"
"""Name of the layer that ends every encoder: float[batch, time // pooling, dim]."""
EMBEDDING = "embedding"
"""Name of the layer whose first weight is the table of pieces."""
PROBE_LENGTH = 48  # pieces: room for any kernel, and a multiple of any pooling up to 4 and of 6, 8, 12
SAME = 1e-7  # the same operations on the same numbers give the same bits
LARGE = 1e9

Ids = npt.NDArray[np.int32]


class Directions(NamedTuple):
    """Which numbers of a state, int32[n] each, depend on no later piece, and which on no earlier one."""

    forward: npt.NDArray[np.int32]
    backward: npt.NDArray[np.int32]


class Task(NamedTuple):
    """What is predicted on one batch.

    token_ids int32[batch, time] is what the encoder reads. Target i is the piece target_ids[i], predicted from the
    state of row rows[i] at positions[i], int32[targets] each. The first `num_forward` targets are predicted from the
    forward half, the others from the backward half; of a masked task all are of one kind.
    """

    token_ids: Ids
    rows: Ids
    positions: Ids
    target_ids: Ids
    num_forward: int


def encoder_of(model: keras.Model) -> keras.Model:
    """Return the part of a classifier up to the layer named `states`, sharing its weights.

    Raises:
        ValueError: the model has no such layer.
    """
    network = network_of(model)
    if network is None:
        raise ValueError(f"{model.name} has no layer named {STATES!r}, so there is no encoder to train by itself")
    return keras.Model(network.input, network.get_layer(STATES).output, name=f"{model.name}_encoder")


def network_of(model: keras.Model) -> keras.Model | None:
    """Return the network that has the layer `states`: the model, or one within it that reads windows or has n-grams
    beside it; None where there is none."""
    return next((network for network in _networks(model) if _layer(network, STATES) is not None), None)


def embedding_table(model: keras.Model) -> Any:
    """Return the variable float[vocabulary, dim] of the layer named `embedding`, wherever `network_of` looks, of a
    network without `states` too; None where there is none."""
    found = [layer for network in _networks(model) if (layer := _layer(network, EMBEDDING)) is not None]
    return found[0].weights[0] if found else None


def _networks(model: keras.Model) -> Iterator[keras.Model]:
    """The model and every network within it, the outer one first."""
    yield model
    for layer in model.layers:
        within = getattr(layer, "layer", layer)  # of a wrapper, what it wraps
        if isinstance(within, keras.Model):
            yield from _networks(within)


def _layer(network: keras.Model, name: str) -> Any:
    return next((layer for layer in network.layers if layer.name == name), None)


def pooling_of(encoder: keras.Model, length: int = PROBE_LENGTH) -> int:
    """Return how many pieces share a state; `length` is of a row that the encoder can read."""
    probe = np.full((1, length), FIRST_LEARNED_ID, np.int32)
    return -(-length // int(encoder(probe, training=False).shape[1]))


def reading_directions(
    encoder: keras.Model, vocabulary_size: int, length: int = PROBE_LENGTH, seed: int = 0
) -> Directions | None:
    """Find out which half of the states has read from which side; None where some number of them sees both sides.

    One piece in the middle is exchanged: numbers that stay the same in all states before it see nothing later, those
    that stay the same in all states after it nothing earlier. An encoder that lets a state see the piece beside it, by
    a convolution or a second layer that reads both ways, is found out so, whatever it is called.
    """
    chance = np.random.default_rng(seed)
    ids = chance.integers(FIRST_LEARNED_ID, vocabulary_size, (4, length)).astype(np.int32)
    middle = length // 2
    other = ids.copy()
    other[:, middle] = FIRST_LEARNED_ID + (ids[:, middle] - FIRST_LEARNED_ID + 1) % (vocabulary_size - FIRST_LEARNED_ID)
    before, after = (np.asarray(encoder(tokens, training=False)) for tokens in (ids, other))
    if before.shape[1] != length:
        return None
    moved = np.abs(before - after) > SAME
    forward = ~moved[:, :middle].any(axis=(0, 1))
    backward = ~moved[:, middle + 1 :].any(axis=(0, 1))
    if not (forward | backward).all():
        return None
    return Directions(np.flatnonzero(forward).astype(np.int32), np.flatnonzero(backward & ~forward).astype(np.int32))


def masked_task(
    token_ids: Ids, chance: np.random.Generator, *, share: float, vocabulary_size: int, pooling: int = 1
) -> Task:
    """Hide a share of the pieces and ask for them.

    Of those chosen 80% become `[UNK]`, 10% another piece, and 10% stay, so that a state has to know its piece even if
    it is there to be seen. Padding, `[CLS]` and pieces that are `[UNK]` already are never chosen, nor is what stands
    behind the last whole group of `pooling` pieces. At least one piece is chosen where there is one.
    """
    covered = token_ids.shape[1] // pooling * pooling
    allowed = token_ids >= FIRST_LEARNED_ID
    allowed[:, covered:] = False
    chosen = allowed & (chance.random(token_ids.shape) < share)
    if not chosen.any() and allowed.any():
        chosen.flat[chance.choice(np.flatnonzero(allowed))] = True
    rows, positions = (axis.astype(np.int32) for axis in np.nonzero(chosen))
    targets = token_ids[rows, positions]
    what = chance.random(len(rows))
    others = chance.integers(FIRST_LEARNED_ID, vocabulary_size, len(rows))
    read = token_ids.copy()
    read[rows, positions] = np.where(what < 0.8, MASK_ID, np.where(what < 0.9, others, targets))
    return Task(read, rows, positions, targets, len(rows))


def directions_task(token_ids: Ids, *, both: bool) -> Task:
    """Ask for the next piece at every step and, with `both`, for the one before; never for padding or `[CLS]`."""
    is_piece = token_ids >= MASK_ID
    is_piece[:, 0] = False
    rows, places = (axis.astype(np.int32) for axis in np.nonzero(is_piece))
    forward = (rows, places - 1, token_ids[rows, places])
    if not both:
        return Task(token_ids, *forward, len(rows))
    inner = is_piece & np.pad(is_piece, ((0, 0), (0, 1)))[:, 1:]  # whose next step is a piece, and no padding
    back_rows, back_places = (axis.astype(np.int32) for axis in np.nonzero(inner))
    backward = (back_rows, back_places + 1, token_ids[back_rows, back_places])
    all_rows, all_positions, targets = (np.concatenate(pair) for pair in zip(forward, backward, strict=True))
    return Task(token_ids, all_rows, all_positions, targets, len(rows))


@keras.saving.register_keras_serializable("valence")
class PieceHead(keras.layers.Layer):
    """From states to a vector for each target, whose product with a piece's embedding says how likely the piece is.

    states float[batch, time // pooling, dim], rows, positions int32[targets], num_forward int32[]
    -> float[targets, embedding_dim].

    With pooling a state is spread over its pieces first, by one dense layer; positions are those of pieces.
    """

    def __init__(
        self, embedding_dim: int, pooling: int = 1, directions: Directions | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.embedding_dim = embedding_dim
        self.pooling = pooling
        self.directions = directions
        halves = 1 if directions is None or not len(directions.backward) else 2
        self.dense = [keras.layers.Dense(embedding_dim * pooling, name=f"dense_{half}") for half in range(halves)]
        self.norm = keras.layers.LayerNormalization(name="norm")

    def build(self, states_shape: tuple, *_: Any) -> None:
        """Make the weights."""
        sizes = [states_shape[-1]] if self.directions is None else [len(half) for half in self.directions if len(half)]
        for dense, size in zip(self.dense, sizes, strict=True):
            dense.build((None, size))
        self.norm.build((None, self.embedding_dim))

    def call(self, states: Any, rows: Any, positions: Any, num_forward: Any) -> Any:
        """Pick the states of the targets and project them."""
        picked = tf.gather_nd(states, tf.stack([rows, positions // self.pooling], axis=1))
        if self.directions is None:
            projected = tf.reshape(self.dense[0](picked), [-1, self.pooling, self.embedding_dim])
            projected = tf.gather(projected, positions % self.pooling, batch_dims=1)
        else:
            halves = (picked[:num_forward], picked[num_forward:])
            used = [
                dense(tf.gather(half, tf.constant(numbers), axis=1))
                for dense, half, numbers in zip(self.dense, halves, self.directions, strict=False)
            ]
            projected = tf.concat(used, axis=0)
        return self.norm(keras.activations.gelu(projected))


def full_loss(vectors: Any, table: Any, bias: Any, target_ids: Any) -> Any:
    """Cross-entropy in nats over the whole vocabulary: float[targets, dim] and float[vocabulary, dim] -> [targets]."""
    logits = tf.matmul(vectors, table, transpose_b=True) + bias
    return tf.nn.sparse_softmax_cross_entropy_with_logits(target_ids, logits)


def sampled_loss(vectors: Any, table: Any, bias: Any, target_ids: Any, sampled: Any, log_expected: Any) -> Any:
    """Cross-entropy in nats against some sampled pieces instead of the whole vocabulary -> float[targets].

    Source: Jean et al., 2015, "On using very large target vocabulary for neural machine translation". `sampled`
    int32[n] are drawn for all targets of a step together; `log_expected` float[vocabulary] is the log of how often
    each piece is expected among them, taken off its logit, so that frequent negatives are not held down too much.
    """
    own = tf.gather(table, target_ids)
    true = tf.reduce_sum(vectors * own, axis=1) + tf.gather(bias, target_ids) - tf.gather(log_expected, target_ids)
    others = tf.matmul(vectors, tf.gather(table, sampled), transpose_b=True)
    others += tf.gather(bias, sampled) - tf.gather(log_expected, sampled)
    others = tf.where(sampled[None, :] == target_ids[:, None], -LARGE, others)  # a target is no negative of itself
    return tf.reduce_logsumexp(tf.concat([true[:, None], others], axis=1), axis=1) - true
