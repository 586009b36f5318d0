import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from app.calibration import (
    BINS,
    TEMPERATURES,
    bin_ids,
    calibration_error_by_chance,
    check_probabilities,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    softmax,
)
from app.errors import RequestError


def sharpened(temperature, count=4000, classes=3, seed=0):
    """Logits whose labels are drawn from softmax(logits / temperature): their true temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2 * temperature, size=(count, classes))
    cumulative = softmax(logits, temperature).cumsum(axis=1)
    return logits, (generator.random((count, 1)) > cumulative).sum(axis=1)


def test_softmax_by_hand():
    np.testing.assert_allclose(softmax([[0.0, math.log(3)]]), [[0.25, 0.75]])
    np.testing.assert_allclose(softmax([[0.0, math.log(9)]], temperature=2), [[0.25, 0.75]])


def test_softmax_of_huge_logits_is_finite():
    np.testing.assert_array_equal(softmax([[1e30, -1e30]]), [[1.0, 0.0]])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(RequestError, match="temperature"):
        softmax([[0.0, 1.0]], temperature)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 6.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, label_ids = sharpened(temperature)
    assert fit_temperature(logits, label_ids) == pytest.approx(temperature, rel=0.07)


def test_the_fit_is_the_minimum_that_a_free_search_finds():
    # Many examples, so that the doubt put into the targets is too small to see.
    logits, label_ids = sharpened(2.0, count=20_000, seed=4)
    found = optimize.minimize(lambda log_t: negative_log_likelihood(logits, label_ids, float(np.exp(log_t[0]))), [0.0])
    assert fit_temperature(logits, label_ids) == pytest.approx(float(np.exp(found.x[0])), rel=1e-3)


def test_scaled_logits_have_the_scaled_temperature():
    logits, label_ids = sharpened(1.5, count=500)
    assert fit_temperature(3 * logits, label_ids) == pytest.approx(3 * fit_temperature(logits, label_ids), rel=1e-4)


def test_the_temperature_lowers_the_calibration_error_and_keeps_the_labels():
    logits, label_ids = sharpened(3.0)
    before, after = softmax(logits), softmax(logits, fit_temperature(logits, label_ids))

    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert expected_calibration_error(label_ids, after) < 0.25 * expected_calibration_error(label_ids, before)


def test_logits_that_say_nothing_keep_their_temperature():
    assert fit_temperature(np.zeros((4, 2)), [0, 1, 1, 0]) == 1.0


def test_two_examples_without_an_error_are_believed_to_three_quarters():
    # Platt's target is (2 + 1) / (2 + 2), and softmax([2 / T, 0]) gives it where 2 / T = log 3.
    assert fit_temperature([[2.0, 0.0], [0.0, 2.0]], [0, 1]) == pytest.approx(2 / math.log(3), rel=1e-4)


def test_the_more_examples_without_an_error_the_surer():
    few, many = (fit_temperature([[2.0, 0.0], [0.0, 2.0]] * n, [0, 1] * n) for n in (5, 500))
    assert TEMPERATURES[0] <= many < few


def test_labels_at_odds_with_the_logits_stay_within_bounds():
    temperature = fit_temperature([[2.0, 0.0], [0.0, 2.0]], [1, 0])
    assert 19 < temperature <= TEMPERATURES[1]


def test_bins_hold_their_upper_edge():
    confidence = np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 0.5, 1.0])
    assert bin_ids(confidence, BINS).tolist() == [0, 0, 1, 7, 14]


def test_reliability_and_calibration_error_by_hand():
    # Two bins: confidence 0.9 and 0.7 share the upper, one of two right; 0.4 in the lower is right.
    probabilities = [[0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.4, 0.3, 0.3]]
    bins = reliability([0, 1, 0], probabilities, bins=2)

    np.testing.assert_array_equal(bins.count, [1, 2])
    np.testing.assert_allclose(bins.confidence, [0.4, 0.8])
    np.testing.assert_allclose(bins.accuracy, [1.0, 0.5])
    assert bins.expected_calibration_error == pytest.approx((1 * 0.6 + 2 * 0.3) / 3)
    assert expected_calibration_error([0, 1, 0], probabilities, bins=2) == pytest.approx(0.4)


def test_an_empty_bin_has_no_accuracy_and_no_weight():
    bins = reliability([0], [[0.9, 0.1]])

    assert np.isnan(bins.accuracy).sum() == BINS - 1
    assert bins.expected_calibration_error == pytest.approx(0.1)


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_order_of_examples_does_not_change_the_calibration_error(count, classes, seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes), size=count)
    label_ids = generator.integers(0, classes, count)
    order = generator.permutation(count)

    error = expected_calibration_error(label_ids, probabilities)
    assert 0 <= error <= 1
    assert expected_calibration_error(label_ids[order], probabilities[order]) == pytest.approx(error)


@pytest.mark.parametrize(
    ("label_ids", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "do not fit"),
        ([[0]], [[0.5, 0.5]], "do not fit"),
        ([0], [0.5], "do not fit"),
        ([], np.zeros((0, 2)), "at least 1 example"),
        ([0], [[1.0]], "2 classes"),
        ([0.0], [[0.5, 0.5]], "not integers"),
        ([0, 2], [[0.5, 0.5]] * 2, "row 1: 2 is not in 0 to 1"),
        ([-1], [[0.5, 0.5]], "row 0: -1"),
        ([0, 0], [[0.5, 0.5], [math.nan, 1.0]], "row 1: .* not finite"),
        ([0, 0], [[0.5, 0.5], [0.5, 0.6]], "row 1: .* sums to 1.1"),
        ([0], [[-0.5, 1.5]], "row 0"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_its_place(label_ids, probabilities, message):
    with pytest.raises(RequestError, match=message):
        check_probabilities(label_ids, probabilities)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(RequestError, match="logits, row 1"):
        fit_temperature([[0.0, 1.0], [math.inf, 0.0]], [0, 1])


def test_float32_softmax_is_accepted():
    logits = np.random.default_rng(0).normal(size=(50, 200)).astype(np.float32)
    exponentials = np.exp(logits)
    label_ids = np.zeros(50, dtype=np.int32)
    check_probabilities(label_ids, exponentials / exponentials.sum(axis=1, keepdims=True))


def test_exactly_right_probabilities_show_the_calibration_error_of_chance():
    generator = np.random.default_rng(3)
    first = generator.uniform(0.5, 1, 400)
    probabilities = np.column_stack([first, 1 - first])
    expected = calibration_error_by_chance(probabilities)
    label_ids = (generator.random((300, 400)) > first).astype(int)
    found = [expected_calibration_error(ids, probabilities) for ids in label_ids]
    assert expected.mean() == pytest.approx(np.mean(found), rel=0.05)
    assert np.quantile(expected, 0.95) == pytest.approx(np.quantile(found, 0.95), rel=0.1)
