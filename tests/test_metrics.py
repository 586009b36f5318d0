import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from app import calibration
from app.errors import RequestError
from app.metrics import BOUNDS, METRICS, Examples, evaluate, evaluate_seeds, per_class
from app.statistics import bootstrap, bootstrap_weights

ORACLES = {
    "accuracy": lambda labels, p, c: oracle.accuracy_score(labels, p.argmax(axis=1)),
    "macro_f1": lambda labels, p, c: oracle.f1_score(
        labels, p.argmax(axis=1), labels=range(c), average="macro", zero_division=0
    ),
    "log_loss": lambda labels, p, c: oracle.log_loss(labels, p, labels=range(c)),
    "auroc": lambda labels, p, c: (
        oracle.roc_auc_score(labels, p[:, 1])
        if c == 2
        else np.mean([oracle.roc_auc_score(labels == k, p[:, k]) for k in range(c) if (labels == k).any()])
    ),
    "brier": lambda labels, p, c: oracle.brier_score_loss(labels, p, labels=range(c), scale_by_half=False),
    "expected_calibration_error": lambda labels, p, c: calibration.expected_calibration_error(labels, p),
}


def make(count, classes, seed=0, decimals=None):
    """Labels and probabilities that know something of them; rounded probabilities have ties."""
    generator = np.random.default_rng(seed)
    label_ids = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), label_ids] += 1
    probabilities = calibration.softmax(logits)
    if decimals is not None:
        probabilities = np.maximum(probabilities.round(decimals), 10**-decimals)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return label_ids, probabilities


def names(classes):
    return tuple(f"label {k}" for k in range(classes))


def values(evaluation):
    return {name: interval.value for name, interval in evaluation.metrics.items()}


def test_every_metric_has_an_oracle():
    assert set(METRICS) == set(ORACLES)


@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_agrees_with_scikit_learn(name, decimals, classes):
    label_ids, probabilities = make(300, classes, seed=classes, decimals=decimals)
    found = METRICS[name](Examples(label_ids, probabilities))(np.ones((1, 300)))

    assert found.shape == (1,)
    assert found[0] == pytest.approx(ORACLES[name](label_ids, probabilities, classes), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", METRICS)
def test_a_bootstrapped_metric_equals_a_loop_over_the_drawn_examples(name, classes):
    label_ids, probabilities = make(40, classes, seed=1, decimals=1)
    metric = METRICS[name](Examples(label_ids, probabilities))
    found = bootstrap(metric, 40, resamples=25, seed=2)

    for value, weights in zip(found, np.concatenate(list(bootstrap_weights(40, 25, seed=2))), strict=True):
        rows = np.repeat(np.arange(40), weights.astype(int))
        assert value == pytest.approx(ORACLES[name](label_ids[rows], probabilities[rows], classes), abs=1e-12)


def test_precision_recall_and_f1_agree_with_scikit_learn_in_every_resample():
    label_ids, probabilities = make(30, 4, seed=3)
    found = bootstrap(per_class(Examples(label_ids, probabilities)), 30, resamples=25, seed=4)

    for table, weights in zip(found, np.concatenate(list(bootstrap_weights(30, 25, seed=4))), strict=True):
        expected = oracle.precision_recall_fscore_support(
            label_ids, probabilities.argmax(axis=1), labels=range(4), zero_division=0, sample_weight=weights
        )
        np.testing.assert_allclose(table, expected[:3], atol=1e-12)


def test_four_reviews_by_hand():
    label_ids = [0, 0, 1, 1]
    probabilities = [[0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.1, 0.9]]
    evaluation = evaluate(label_ids, probabilities, ("fresh", "rotten"), resamples=50)

    found = values(evaluation)
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.9]).mean())
    assert found["brier"] == pytest.approx(2 * (0.04 + 0.36 + 0.09 + 0.01) / 4)
    assert found["auroc"] == 1.0
    # Every answer has a bin to itself: gaps 0.2, 0.6, 0.3, 0.1.
    assert found["expected_calibration_error"] == pytest.approx(1.2 / 4)
    assert evaluation.confusion.tolist() == [[1, 1], [0, 2]]
    assert evaluation.support == {"fresh": 2, "rotten": 2}
    fresh = evaluation.per_class["fresh"]
    assert (fresh["precision"].value, fresh["recall"].value) == (1.0, 0.5)


def test_auroc_counts_a_tie_half():
    evaluation = evaluate([0, 1, 1], [[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]], ("no", "yes"), resamples=20)
    assert evaluation.metrics["auroc"].value == 0.75


def test_the_interval_of_an_accuracy_is_as_wide_as_theory_says():
    label_ids, probabilities = make(2000, 2)
    accuracy = evaluate(label_ids, probabilities, names(2)).metrics["accuracy"]
    error = math.sqrt(accuracy.value * (1 - accuracy.value) / 2000)

    assert accuracy.low == pytest.approx(accuracy.value - 1.96 * error, abs=0.15 * error)
    assert accuracy.high == pytest.approx(accuracy.value + 1.96 * error, abs=0.15 * error)


def test_the_same_seed_gives_the_same_intervals_and_another_does_not():
    label_ids, probabilities = make(100, 3)
    first, again, other = (
        evaluate(label_ids, probabilities, names(3), resamples=100, seed=seed).to_dict() for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


@given(count=st.integers(1, 40), classes=st.integers(2, 5), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_neither_the_order_of_examples_nor_that_of_labels_changes_a_metric(count, classes, seed):
    label_ids, probabilities = make(count, classes, seed)
    generator = np.random.default_rng(seed)
    rows, columns = generator.permutation(count), generator.permutation(classes)
    before = values(evaluate(label_ids, probabilities, names(classes), resamples=2))
    shuffled = values(evaluate(label_ids[rows], probabilities[rows], names(classes), resamples=2))
    # Column j of the relabelled table is what column columns[j] was.
    relabelled = values(
        evaluate(np.argsort(columns)[label_ids], probabilities[:, columns], names(classes), resamples=2)
    )

    assert shuffled == pytest.approx(before, nan_ok=True)
    assert relabelled == pytest.approx(before, nan_ok=True)


@given(count=st.integers(1, 30), classes=st.integers(2, 4), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_intervals_are_in_order_and_within_the_metric_s_range(count, classes, seed):
    evaluation = evaluate(*make(count, classes, seed), names(classes), resamples=30)
    tops = {"log_loss": math.inf, "brier": 2.0}
    for name, interval in evaluation.metrics.items():
        if not math.isnan(interval.low):
            assert 0 <= interval.low <= interval.high <= tops.get(name, 1 + 1e-12)
    assert evaluation.confusion.sum() == count == sum(evaluation.support.values())


def test_a_single_example_has_intervals_without_width_and_no_auroc():
    evaluation = evaluate([1], [[0.2, 0.8]], ("no", "yes"), resamples=10)

    accuracy, auroc = evaluation.metrics["accuracy"], evaluation.metrics["auroc"]
    assert (accuracy.low, accuracy.value, accuracy.high) == (1, 1, 1)
    assert math.isnan(auroc.value)
    assert evaluation.to_dict()["metrics"]["auroc"] == {"value": None, "low": None, "high": None}


def test_a_label_that_no_test_example_has_counts_zero_in_f1_and_is_left_out_of_auroc():
    label_ids = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    evaluation = evaluate(label_ids, probabilities, ("a", "b", "absent"), resamples=20)

    assert evaluation.support["absent"] == 0
    assert evaluation.per_class["absent"]["recall"].value == 0
    assert evaluation.metrics["macro_f1"].value == pytest.approx(2 / 3)
    assert evaluation.metrics["auroc"].value == 1.0


def test_a_label_that_is_never_predicted_has_precision_zero():
    evaluation = evaluate([0, 1], [[0.9, 0.1], [0.6, 0.4]], ("a", "b"), resamples=20)
    assert evaluation.per_class["b"]["precision"].value == 0


def test_resamples_that_lose_a_label_leave_auroc_defined():
    # One positive of four: a third of the resamples have none.
    evaluation = evaluate([0, 0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.5, 0.5]], ("no", "yes"), resamples=200)
    auroc = evaluation.metrics["auroc"]
    assert auroc.value == pytest.approx(2 / 3)
    assert 0 <= auroc.low < auroc.value < auroc.high <= 1


def test_a_probability_of_exactly_zero_costs_much_but_not_infinitely():
    evaluation = evaluate([1, 0], [[1.0, 0.0], [1.0, 0.0]], ("no", "yes"), resamples=10)
    assert evaluation.metrics["log_loss"].value == pytest.approx(-math.log(np.finfo(float).eps) / 2)


def test_an_evaluation_is_json():
    evaluation = evaluate(*make(20, 3), ("neg", "中立", "pos"), resamples=10)
    found = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))

    assert found["label_names"] == ["neg", "中立", "pos"]
    assert found["count"] == 20
    assert set(found["metrics"]) == set(METRICS)
    assert set(found["per_class"]["中立"]) == {"support", "precision", "recall", "f1"}
    assert np.sum(found["confusion"]) == 20


@pytest.mark.parametrize(("label_names", "message"), [(("a",), "1 label names for 2"), (("a", "a"), "not distinct")])
def test_label_names_must_fit(label_names, message):
    with pytest.raises(RequestError, match=message):
        evaluate([0], [[0.5, 0.5]], label_names)


def test_probabilities_must_be_probabilities():
    with pytest.raises(RequestError, match="sums to"):
        evaluate([0], [[0.5, 0.9]], ("a", "b"))


def several_seeds(count, seeds, classes=2, spread=0.3):
    """Labels, and seeds of one model that mostly agree: float[seeds, n, c]."""
    label_ids, probabilities = make(count, classes)
    chance = np.random.default_rng(9).normal(0, spread, size=(seeds, count, classes))
    return label_ids, np.stack([calibration.softmax(np.log(probabilities) + of_seed) for of_seed in chance])


def test_one_seed_is_evaluated_as_a_single_run():
    label_ids, probabilities = make(80, 3)
    seeds = evaluate_seeds(label_ids, probabilities[None], names(3), resamples=50)
    assert seeds.to_dict() == evaluate(label_ids, probabilities, names(3), resamples=50).to_dict()


def test_several_seeds_have_the_mean_of_their_values_and_the_sum_of_their_confusions():
    label_ids, probabilities = several_seeds(200, 4, classes=3)
    found = evaluate_seeds(label_ids, probabilities, names(3), resamples=100)
    each = [evaluate(label_ids, of_seed, names(3), resamples=2) for of_seed in probabilities]

    for name in METRICS:
        assert found.metrics[name].value == pytest.approx(np.mean([values(one)[name] for one in each]))
        assert found.metrics[name].low < found.metrics[name].value < found.metrics[name].high
    recalls = [one.per_class["label 1"]["recall"].value for one in each]
    assert found.per_class["label 1"]["recall"].value == pytest.approx(np.mean(recalls))
    np.testing.assert_array_equal(found.confusion, np.sum([one.confusion for one in each], axis=0))
    assert found.count == 200


def test_seeds_that_differ_make_intervals_wider_and_within_bounds():
    label_ids, probabilities = several_seeds(150, 3, spread=0.0)
    worse = probabilities.copy()
    worse[0] = calibration.softmax(0.2 * np.log(worse[0]) + np.random.default_rng(1).normal(0, 2, worse[0].shape))
    alike, apart = (evaluate_seeds(label_ids, given, names(2), resamples=200) for given in (probabilities, worse))

    for name, interval in apart.metrics.items():
        low, high = BOUNDS[name]
        assert low <= interval.low <= interval.high <= high
    widths = [found.metrics["accuracy"].high - found.metrics["accuracy"].low for found in (alike, apart)]
    assert widths[1] > 1.5 * widths[0]


@pytest.mark.parametrize("shape", [(4, 2), (0, 4, 2)])
def test_seeds_need_an_axis_of_their_own(shape):
    with pytest.raises(RequestError, match=r"\[seeds, n, classes\] with at least 1 seed"):
        evaluate_seeds([0, 1, 0, 1], np.full(shape, 0.5), ("a", "b"))


def test_25_000_reviews_are_evaluated_in_seconds():
    label_ids, probabilities = make(25_000, 2)
    start = time.process_time()
    evaluate(label_ids, probabilities, names(2), resamples=1000)
    assert time.process_time() - start < 10
