"""The convolution before an encoder: what it sees, what it pools, and that padding is neither."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from models import MODELS
from models.stem import ConvolutionStem, ShortenMask
from tests.test_models import NUM_CLASSES, SEQUENCE_LENGTH, TOLERANCE, VOCABULARY_SIZE, logits, token_ids


def summing_stem(kernel_size: int, pooling: int) -> ConvolutionStem:
    """One feature, the sum of the steps that the kernel covers."""
    stem = ConvolutionStem(1, kernel_size, pooling)
    stem.build((None, None, 1))
    stem.convolution.kernel.assign(np.ones((kernel_size, 1, 1)))
    return stem


def run(stem: ConvolutionStem, rows: list[list[float]], lengths: list[int]) -> np.ndarray:
    states = np.array(rows, "float32")[:, :, None]
    mask = np.arange(states.shape[1])[None] < np.array(lengths)[:, None]
    return keras.ops.convert_to_numpy(stem(states, mask))[:, :, 0]


def test_steps_see_their_neighbours_and_no_padding():
    given = run(summing_stem(3, 1), [[1, 2, 3, 9, 9]], [3])
    np.testing.assert_allclose(given[0, :3], [3, 6, 5])


def test_groups_give_their_maximum_and_padding_never_wins():
    given = run(summing_stem(1, 2), [[1, 5, 2, 9, 9], [3, 1, 4, 1, 5]], [3, 5])
    np.testing.assert_allclose(given, [[5, 2, 0], [3, 4, 5]])


@pytest.mark.parametrize(("length", "groups"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_a_group_counts_where_one_of_its_steps_does(length, groups):
    mask = np.arange(9)[None] < length
    shorter = keras.ops.convert_to_numpy(ShortenMask(3)(mask))
    np.testing.assert_array_equal(shorter, [np.arange(3) < groups])


@pytest.mark.parametrize("name", ["lstm", "transformer"])
@pytest.mark.parametrize("pooling", [1, 4])
def test_behind_a_stem_padding_and_batch_mates_change_no_prediction(name, pooling):
    entry = MODELS[name]
    keras.utils.set_random_seed(0)
    model = entry.build(
        entry.config(stem_kernel=3, stem_pooling=pooling, wide=False),
        vocabulary_size=VOCABULARY_SIZE,
        num_classes=NUM_CLASSES,
        sequence_length=SEQUENCE_LENGTH,
    )
    ids = token_ids(6)
    given = logits(model, ids)
    longer = np.pad(ids, [(0, 0), (0, SEQUENCE_LENGTH - ids.shape[1])])
    np.testing.assert_allclose(given, logits(model, longer), atol=TOLERANCE)
    alone = np.concatenate([logits(model, ids[[row], : np.count_nonzero(ids[row])]) for row in range(6)])
    np.testing.assert_allclose(given, alone, atol=TOLERANCE)
