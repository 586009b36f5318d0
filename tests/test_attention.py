"""The Transformer block against a reference written out by hand, and its compiled road against the plain one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf, softmax

from models import attention
from models.attention import CHUNK_POSITIONS, TransformerBlock
from models.compiled import Chunked, hashed_dropout

ROWS, TIME, DIM, WIDE, HEADS = 3, 7, 8, 12, 2
MASK = np.arange(TIME)[None, :] < np.array([[TIME], [3], [0]])


def built(**arguments: object) -> TransformerBlock:
    keras.utils.set_random_seed(2)
    layer = TransformerBlock(WIDE, HEADS, **arguments)
    layer.build((None, None, DIM))
    rng = np.random.default_rng(0)
    layer.set_weights([weight + rng.normal(size=weight.shape, scale=0.3) for weight in layer.get_weights()])
    return layer


def states(rows: int = ROWS, time: int = TIME) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, time, DIM)).astype("float32")


def normalised(values: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    deviation = np.sqrt(values.var(axis=-1, keepdims=True) + 1e-5)
    return (values - values.mean(axis=-1, keepdims=True)) / deviation * gamma + beta


def reference(weights: list[np.ndarray], row: np.ndarray, mask: np.ndarray, positions: str) -> np.ndarray:
    """The block on one row [time, dim], a position, a head and a pair of dimensions at a time."""
    gamma1, beta1, qkv_kernel, qkv_bias, out_kernel, out_bias, gamma2, beta2, wide, wide_bias, narrow, narrow_bias = (
        weights
    )
    query, key, value = np.split(normalised(row, gamma1, beta1) @ qkv_kernel + qkv_bias, 3, axis=1)
    size, attended = DIM // HEADS, np.zeros((TIME, DIM))
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        q, k = query[:, part].copy(), key[:, part].copy()
        if positions == "rotary":
            q, k = turned(q), turned(k)
        scores = q @ k.T / np.sqrt(size)
        if positions == "alibi":
            slope = 2.0 ** (-8 * (head + 1) / HEADS)
            scores -= slope * np.abs(np.arange(TIME)[:, None] - np.arange(TIME)[None, :])
        if mask.any():
            scores[:, ~mask] = -np.inf
        else:
            scores[:] = 0  # nothing to attend to: everything alike
        attended[:, part] = softmax(scores, axis=1) @ value[:, part]
    row = row + attended @ out_kernel + out_bias
    hidden = normalised(row, gamma2, beta2) @ wide + wide_bias
    return row + hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))) @ narrow + narrow_bias


def turned(values: np.ndarray) -> np.ndarray:
    """Each pair (i, i + half) as a complex number, turned by place / 10000^(2i / size)."""
    half = values.shape[1] // 2
    angle = np.arange(len(values))[:, None] / 10_000 ** (np.arange(half)[None, :] / half)
    pairs = (values[:, :half] + 1j * values[:, half:]) * np.exp(1j * angle)
    return np.concatenate([pairs.real, pairs.imag], axis=1)


@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
def test_the_block_is_the_one_of_the_reference(positions):
    layer = built(positions=positions)
    found = layer(states(), tf.constant(MASK)).numpy()
    for row, mask, ours in zip(states(), MASK, found, strict=True):
        expected = reference(layer.get_weights(), row, mask, positions)
        considered = mask if mask.any() else slice(None)
        np.testing.assert_allclose(ours[considered], expected[considered], atol=1e-5)


@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
def test_padding_changes_nothing(positions):
    layer = built(positions=positions)
    padded = np.pad(states(), [(0, 0), (0, 4), (0, 0)], constant_values=9.0)
    longer = layer(padded, tf.constant(np.pad(MASK, [(0, 0), (0, 4)]))).numpy()[:, :TIME]
    shorter = layer(states(), tf.constant(MASK)).numpy()
    np.testing.assert_allclose(longer[MASK], shorter[MASK], atol=1e-5)


@pytest.mark.parametrize("heads", [3, 8])
def test_heads_that_cut_unevenly_are_refused(heads):
    with pytest.raises(ValueError, match=f"num_heads is {heads}"):
        TransformerBlock(WIDE, heads, positions="rotary").build((None, None, DIM))


def test_the_compiled_road_gives_the_same_states_and_gradients(monkeypatch):
    time, rows = 160, 9  # neither positions nor rows divide into chunks
    layer, given = built(positions="rotary"), tf.constant(states(rows, time))
    assert rows * time % CHUNK_POSITIONS
    assert rows % (CHUNK_POSITIONS // time)
    mask = tf.constant(np.arange(time)[None, :] < np.arange(100, 100 + rows)[:, None])

    def run() -> list[np.ndarray]:
        weights = [variable.value for variable in layer.trainable_variables]

        @tf.function
        def traced(given: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(given)
                found = layer(given, mask, training=True) * tf.cast(mask, tf.float32)[:, :, None]
                loss = tf.reduce_sum(tf.sin(found))
            return [found, *tape.gradient(loss, [given, *weights])]

        return [value.numpy() for value in traced(given)]

    monkeypatch.setattr(attention, "COMPILED_FROM", rows * time)
    compiled = run()
    monkeypatch.setattr(attention, "COMPILED_FROM", rows * time + 1)
    plain = run()
    assert len(plain) == 14
    for ours, theirs in zip(compiled, plain, strict=True):
        scale = np.abs(theirs).max()
        assert scale > 0.01
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-5)
    assert any((ours != theirs).any() for ours, theirs in zip(compiled, plain, strict=True))  # two roads, not one


def test_a_compiled_gradient_sees_the_dropout_of_its_forward_pass():
    def drop(rows: tuple, given: tuple, weights: tuple, seed: tf.Tensor) -> tf.Tensor:
        return hashed_dropout(rows[0] * weights[0], 0.5, seed)

    rows, factor = tf.random.stateless_normal([3, 4, 5], (1, 2)), tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch((rows, factor))
        result = Chunked(drop)((rows,), (), (factor,), tf.constant(7, tf.uint32))
    for_rows, for_factor = tape.gradient(result, (rows, factor))
    kept = result.numpy() != 0
    assert 15 < kept.sum() < 45
    np.testing.assert_allclose(for_rows, kept * 2.0 / 0.5)
    np.testing.assert_allclose(for_factor, (rows.numpy() * kept).sum() / 0.5, rtol=1e-5)
    assert (kept[0] != kept[1]).any()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_hashed_dropout_drops_the_share_and_keeps_the_mean(rate):
    dropped = [hashed_dropout(tf.ones([400, 500]), rate, tf.constant(seed, tf.uint32)).numpy() for seed in (1, 2)]
    for values in dropped:
        assert set(np.unique(values)) == {0.0, np.float32(1 / (1 - rate))}
        assert (values == 0).mean() == pytest.approx(rate, abs=0.005)  # standard error 0.0011
    gone, others = (dropped[0] == 0) - rate, (dropped[1] == 0) - rate
    variance = rate * (1 - rate)
    for shifted in (others, np.roll(gone, 1, axis=1), np.roll(gone, 1, axis=0), np.roll(gone, 7)):
        assert abs((gone * shifted).mean() / variance) < 0.01  # no correlation: standard error 0.0022


def test_each_step_drops_others_and_a_seed_repeats_them():
    def steps() -> list[np.ndarray]:
        layer = built(dropout=0.5)
        return [layer(states(), tf.constant(MASK), training=True).numpy() for _ in range(2)]

    first, second = steps(), steps()
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(first, second)


def test_a_saved_block_comes_back(tmp_path):
    given, mask = keras.Input((None, DIM)), keras.Input((None,), dtype="bool")
    layer = TransformerBlock(WIDE, HEADS, dropout=0.1, positions="alibi", name="block")
    model = keras.Model([given, mask], layer(given, mask))
    assert model.output_shape == (None, None, DIM)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    batch = [tf.constant(states()), tf.constant(MASK)]
    np.testing.assert_array_equal(model(batch), again(batch))


def test_an_export_holds_plain_operations_only():
    layer = built(dropout=0.1)

    @tf.function(input_signature=[tf.TensorSpec([None, None, DIM]), tf.TensorSpec([None, None], tf.bool)])
    def run(given: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return layer(given, mask)

    graph = run.get_concrete_function().graph.as_graph_def()
    assert "XlaMustCompile" not in str(graph)
    assert not any(node.op in ("If", "While", "PartitionedCall") for node in graph.node)
