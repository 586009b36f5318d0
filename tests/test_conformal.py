"""Conformal sets: the threshold by hand, by another library, and what is promised of it in many draws."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from app.calibration import softmax
from app.conformal import abstains, coverage_report, fit_threshold, prediction_sets
from app.errors import RequestError


def drawn(count, classes=4, seed=0, spread=1.5):
    """Probabilities, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    probabilities = softmax(generator.normal(0, spread, (count, classes)))
    return (generator.random((count, 1)) > probabilities.cumsum(axis=1)).sum(axis=1), probabilities


def believing(*values):
    """Rows of two classes whose true label is 0 and is believed with these probabilities."""
    return np.zeros(len(values), int), np.array([[value, 1 - value] for value in values])


# The threshold


@pytest.mark.parametrize(
    ("coverage", "threshold"),
    # Of 9 texts the ceil(10 * coverage)-th largest probability counts.
    [(0.1, 0.9), (0.5, 0.5), (0.55, 0.4), (0.8, 0.2), (0.81, 0.1), (0.9, 0.1), (0.91, 0.0), (0.99, 0.0)],
)
def test_the_threshold_of_nine_texts_by_hand(coverage, threshold):
    label_ids, probabilities = believing(0.3, 0.1, 0.9, 0.5, 0.7, 0.2, 0.8, 0.4, 0.6)
    assert fit_threshold(label_ids, probabilities, coverage) == pytest.approx(threshold)


def test_a_product_that_rounding_lifts_over_a_whole_number_does_not_take_the_next_rank():
    assert 100 * 0.55 > 55
    label_ids, probabilities = believing(*(np.arange(99, 0, -1) / 100))
    assert fit_threshold(label_ids, probabilities, 0.55) == pytest.approx(0.45)


def test_texts_too_few_for_the_coverage_get_every_label():
    label_ids, probabilities = believing(*[0.99] * 8)
    threshold = fit_threshold(label_ids, probabilities, 0.9)
    assert threshold == 0
    assert prediction_sets([[1.0, 0.0], [0.5, 0.5]], threshold).all()


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_coverage_that_is_none_is_refused(coverage):
    with pytest.raises(RequestError, match=r"coverage .*between 0 and 1"):
        fit_threshold([0], [[0.5, 0.5]], coverage)


@pytest.mark.parametrize("coverage", [0.6, 0.8, 0.9, 0.95])
def test_thresholds_and_sets_are_those_of_mapie(coverage):
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class AsGiven(ClassifierMixin, BaseEstimator):
        """Its features are the probabilities."""

        def fit(self, x, y):
            self.classes_ = np.arange(4)
            self.n_features_in_ = 4
            return self

        def predict(self, x):
            return np.argmax(x, axis=1)

        def predict_proba(self, x):
            return x

    label_ids, probabilities = drawn(333)
    _, fresh = drawn(500, seed=1)
    oracle = SplitConformalClassifier(AsGiven().fit(None, None), confidence_level=coverage, prefit=True)
    with warnings.catch_warnings(action="ignore"):
        oracle.conformalize(probabilities, label_ids)
        _, theirs = oracle.predict_set(fresh)
    ours = prediction_sets(fresh, fit_threshold(label_ids, probabilities, coverage))
    filled = ~theirs[:, :, 0].any(axis=1)
    np.testing.assert_array_equal(ours[~filled], theirs[~filled, :, 0])
    # Theirs may be empty; ours hold the likeliest label then.
    np.testing.assert_array_equal(ours[filled].sum(axis=1), 1)


# The promise


@pytest.mark.parametrize(("count", "coverage"), [(20, 0.9), (150, 0.9), (60, 0.75)])
def test_over_many_draws_the_sets_are_right_as_often_as_asked(count, coverage):
    # Labels are drawn from other probabilities than those shown: the promise needs no calibration.
    covered = []
    for seed in range(400):
        label_ids, true = drawn(count + 50, seed=seed)
        shown = softmax(np.log(true), temperature=0.5)
        threshold = fit_threshold(label_ids[:count], shown[:count], coverage)
        sets = prediction_sets(shown[count:], threshold)
        covered.append(sets[np.arange(50), label_ids[count:]].mean())
    error = np.std(covered) / math.sqrt(len(covered))
    assert coverage - 4 * error <= np.mean(covered) <= coverage + 1 / (count + 1) + 4 * error


def test_a_classifier_right_more_often_than_asked_gives_one_label_and_is_right_as_often():
    label_ids, probabilities = drawn(2000, spread=6)
    accuracy = (probabilities.argmax(axis=1) == label_ids).mean()
    assert accuracy > 0.8
    sets = prediction_sets(probabilities, fit_threshold(label_ids, probabilities, 0.7))
    assert not abstains(sets).any()
    assert coverage_report(label_ids, sets).coverage == accuracy


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 1000), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_more_coverage_never_takes_a_label_away_and_the_likeliest_is_always_in(count, classes, seed, one, other):
    label_ids, probabilities = drawn(count, classes, seed)
    low, high = (
        prediction_sets(probabilities, fit_threshold(label_ids, probabilities, coverage))
        for coverage in sorted((one, other))
    )
    assert (high >= low).all()
    assert low[np.arange(count), probabilities.argmax(axis=1)].all()
    # On the texts that it was fitted on, the rank is reached by construction.
    assert coverage_report(label_ids, high).coverage >= max(one, other) - 1e-9


# Sets


def test_sets_by_hand():
    sets = prediction_sets([[0.5, 0.3, 0.2], [0.25, 0.25, 0.5], [0.26, 0.37, 0.37], [0.4, 0.4, 0.2]], 0.3)
    assert sets.tolist() == [
        [True, True, False],
        [False, False, True],
        [False, True, True],
        [True, True, False],
    ]
    assert abstains(sets).tolist() == [True, False, True, True]


def test_where_no_label_reaches_the_threshold_the_first_of_the_likeliest_is_the_set():
    assert prediction_sets([[0.2, 0.4, 0.4]], 0.7).tolist() == [[False, True, False]]


def test_no_texts_have_no_sets():
    assert prediction_sets(np.zeros((0, 3)), 0.5).shape == (0, 3)
    assert abstains(np.zeros((0, 3), bool)).shape == (0,)


# The report


def test_the_report_by_hand():
    sets = [[True, False, False], [True, True, False], [False, True, False], [True, True, True]]
    report = coverage_report([0, 0, 0, 1], sets)
    assert (report.count, report.coverage, report.mean_set_size) == (4, 0.75, 1.75)
    assert (report.single_share, report.single_accuracy) == (0.5, 0.5)
    np.testing.assert_allclose(report.class_coverage, [2 / 3, 1, np.nan])
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["class_coverage"] == [2 / 3, 1, None]


@pytest.mark.parametrize(("covered", "count"), [(0, 5), (5, 5), (1, 2), (87, 100), (1160, 1289)])
def test_the_interval_of_the_coverage_is_that_of_statsmodels(covered, count):
    sets = np.zeros((count, 2), bool)
    sets[:covered, 0] = True
    report = coverage_report(np.zeros(count, int), sets)
    assert (report.coverage_low, report.coverage_high) == pytest.approx(
        proportion_confint(covered, count, method="beta")
    )


def test_without_a_single_label_there_is_no_accuracy_of_single_labels():
    report = coverage_report([0, 1], np.ones((2, 2), bool))
    assert math.isnan(report.single_accuracy)
    assert report.to_dict()["single_accuracy"] is None


def test_labels_and_sets_that_do_not_fit_are_refused():
    with pytest.raises(RequestError, match=r"label_ids, row 1: 2"):
        coverage_report([0, 2], np.ones((2, 2), bool))
    with pytest.raises(RequestError, match=r"sets \[n, classes\] do not fit"):
        coverage_report([0], np.ones((2, 2), bool))
