"""The mixing of `fnet`: the Fourier transform of each row's own length."""

from __future__ import annotations

import keras_hub
import numpy as np

from models.fnet import FourierMixing

LENGTHS = (9, 1, 6, 7)


def made(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """States float32[4, steps, 10], the same for each row's own steps, then something else; and the mask."""
    chance = np.random.default_rng(0)
    states = chance.standard_normal((4, 9, 10)).astype("float32")
    padded = np.full((4, steps, 10), 1e3, "float32")
    padded[:, :9] = states
    mask = np.arange(steps) < np.array(LENGTHS)[:, None]
    return padded, mask


def test_each_row_is_the_real_part_of_its_own_two_dimensional_transform():
    states, mask = made(12)
    mixed = np.asarray(FourierMixing()(states, mask))
    for row, length in enumerate(LENGTHS):
        expected = np.fft.fft2(states[row, :length], norm="ortho").real
        np.testing.assert_allclose(mixed[row, :length], expected, atol=1e-5)
        assert (mixed[row, length:] == 0).all()


def test_a_row_of_2048_steps_loses_no_digits():
    states = np.random.default_rng(0).standard_normal((1, 2047, 2)).astype("float32")
    mixed = FourierMixing()(states, np.ones((1, 2047), bool))
    np.testing.assert_allclose(mixed[0], np.fft.fft2(states[0], norm="ortho").real, atol=2e-5)


def test_a_row_without_a_piece_gives_zeros():
    assert (np.asarray(FourierMixing()(np.ones((1, 3, 4), "float32"), np.zeros((1, 3), bool))) == 0).all()


def test_keras_hub_s_layer_depends_on_how_far_a_row_is_padded():
    # The day this fails, models/fnet.py can take theirs.
    layer = keras_hub.layers.FNetEncoder(16)
    states = np.random.default_rng(0).standard_normal((2, 9, 8)).astype("float32")
    padded = np.pad(states, [(0, 0), (0, 3), (0, 0)])
    assert abs(np.asarray(layer(padded))[:, :9] - np.asarray(layer(states))).max() > 0.1
