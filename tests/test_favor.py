"""FAVOR+ attention: unbiased, better with more and with orthogonal features, blind to padding, finite."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from models.favor import FavorAttention, draw_directions, favor_attention, log_features

DIM = 8


def kernel_estimates(queries: np.ndarray, keys: np.ndarray, num_features: int, orthogonal: bool) -> np.ndarray:
    """3,000 estimates of exp(q.k), float64[draws, pairs]."""
    chance = np.random.default_rng(0)
    directions = np.stack([draw_directions(num_features, DIM, chance, orthogonal=orthogonal) for _ in range(3_000)])
    of_queries, of_keys = (np.exp(np.float64(log_features(vectors, directions))) for vectors in (queries, keys))
    return (of_queries * of_keys).sum(axis=-1)


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys float32[6, DIM] of length 0.8, the first key equal to its query."""
    vectors = np.random.default_rng(1).standard_normal((2, 6, DIM))
    queries, keys = (0.8 * vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype("float32")
    keys[0] = queries[0]
    return queries, keys


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_kernel_is_estimated_without_bias(pairs, orthogonal):
    exact = np.exp((np.float64(pairs[0]) * pairs[1]).sum(axis=1))
    estimates = kernel_estimates(*pairs, DIM + DIM // 2, orthogonal)  # a whole block and half a one
    standard_error = estimates.std(axis=0, ddof=1) / len(estimates) ** 0.5
    assert (standard_error < 0.03 * exact).all(), "too few draws to show anything"
    assert (abs(estimates.mean(axis=0) - exact) < 3 * standard_error).all()


def test_orthogonal_directions_vary_no_more_than_independent_ones(pairs):
    orthogonal, independent = (kernel_estimates(*pairs, DIM, kind).var(axis=0) for kind in (True, False))
    assert (orthogonal < independent).all()


def test_directions_are_orthogonal_by_block_and_as_long_as_normal_ones():
    directions = draw_directions(4_000, DIM, np.random.default_rng(0))
    product = directions[:DIM] @ directions[:DIM].T
    np.testing.assert_allclose(product, np.diag(np.diag(product)), atol=1e-5)
    # A square of length is chi-square: mean DIM, variance 2 DIM. Components are normal: mean 0, variance 1.
    squares = (directions**2).sum(axis=1)
    assert squares.mean() == pytest.approx(DIM, rel=0.03)
    assert squares.var() == pytest.approx(2 * DIM, rel=0.15)
    assert abs(directions.mean(axis=0)).max() < 0.06
    np.testing.assert_allclose(directions.var(axis=0), 1, atol=0.1)


def made(length: int = 20, scale: float = 1.0, seed: int = 2) -> list[np.ndarray]:
    """Queries, keys and values float32[2 rows, 3 heads, length, DIM]."""
    chance = np.random.default_rng(seed)
    queries, keys, values = (chance.standard_normal((2, 3, length, DIM)).astype("float32") for _ in range(3))
    return [scale * queries, scale * keys, values]


def heads_directions(num_features: int, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return np.stack([draw_directions(num_features, DIM, chance) for _ in range(3)])


def exact_attention(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weights = np.exp(np.float64(queries) @ keys.swapaxes(-1, -2) / DIM**0.5) * mask[:, None, None, :]
    return weights / weights.sum(axis=-1, keepdims=True) @ values


def test_the_error_against_exact_attention_falls_with_the_root_of_the_number_of_features():
    queries_keys_values, mask = made(scale=0.5), np.arange(20) < np.array([[20], [13]])
    exact = exact_attention(*queries_keys_values, mask)
    counts, errors = [32, 128, 512], []
    for count in counts:
        estimates = (favor_attention(*queries_keys_values, mask, heads_directions(count, seed)) for seed in range(20))
        errors.append(np.mean([np.linalg.norm(estimate - exact) / np.linalg.norm(exact) for estimate in estimates]))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4
    assert errors[-1] < 0.1


def test_it_is_what_the_features_say_without_stabilising():
    (queries, keys, values), directions = made(), heads_directions(16)
    mask = np.arange(20) < np.array([[20], [7]])
    scale = DIM**-0.25
    of_queries = np.exp(np.float64(log_features(queries * scale, directions)))
    of_keys = np.exp(np.float64(log_features(keys * scale, directions))) * mask[:, None, :, None]
    weights = of_queries @ of_keys.swapaxes(-1, -2)
    expected = weights / weights.sum(axis=-1, keepdims=True) @ values
    np.testing.assert_allclose(favor_attention(queries, keys, values, mask, directions), expected, atol=1e-5)


def test_masked_keys_weigh_nothing_whatever_they_hold():
    (queries, keys, values), directions = made(), heads_directions(16)
    mask = np.arange(20) < np.array([[12], [12]])
    expected = favor_attention(
        queries[:, :, :12], keys[:, :, :12], values[:, :, :12], np.ones((2, 12), bool), directions
    )
    keys[:, :, 12:] *= 30
    values[:, :, 12:] = 1e6
    found = np.asarray(favor_attention(queries, keys, values, mask, directions))
    np.testing.assert_allclose(found[:, :, :12], expected, atol=1e-5)


def test_a_row_without_a_piece_gives_zeros():
    mask = np.array([[True] * 20, [False] * 20])
    found = np.asarray(favor_attention(*made(), mask, heads_directions(16)))
    assert (found[1] == 0).all()
    assert (found[0] != 0).all()


def test_vectors_of_any_length_give_a_mean_of_the_values():
    queries, keys, _ = made(scale=100)
    found = favor_attention(queries, keys, np.ones_like(keys), np.ones((2, 20), bool), heads_directions(16))
    np.testing.assert_allclose(found, 1, rtol=1e-5)


def test_directions_are_weights_that_follow_the_seed_and_are_not_trained():
    def layer(seed: int) -> FavorAttention:
        keras.utils.set_random_seed(seed)
        attention = FavorAttention(num_heads=2, num_features=6)
        attention.build((None, None, 8))
        return attention

    first, again, other = (layer(seed) for seed in (0, 0, 1))
    assert [weight.name for weight in first.non_trainable_weights] == ["directions"]
    drawn, drawn_again, others = (np.asarray(one.directions.numpy()) for one in (first, again, other))
    assert drawn.shape == (2, 6, 4)
    np.testing.assert_array_equal(drawn, drawn_again)
    assert not np.allclose(drawn, others)
    assert not np.allclose(drawn[0], drawn[1]), "each head has its own"
