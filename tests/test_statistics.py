import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from app import statistics
from app.metrics import METRICS, Examples
from app.statistics import (
    Interval,
    bca_interval,
    bootstrap,
    bootstrap_weights,
    holm,
    jackknife,
    mcnemar_exact,
    paired_bootstrap,
    paired_permutation,
    percentile_interval,
    weighted_mean,
)


def test_every_resample_draws_as_many_examples_as_there_are():
    weights = np.concatenate(list(bootstrap_weights(7, 50, seed=0)))

    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights >= 0).all()


def test_weights_do_not_depend_on_how_they_are_cut_into_chunks(monkeypatch):
    whole = np.concatenate(list(bootstrap_weights(11, 40, seed=3)))
    monkeypatch.setattr(statistics, "CHUNK_WEIGHTS", 33)
    chunks = list(bootstrap_weights(11, 40, seed=3))

    assert [len(chunk) for chunk in chunks] == [3] * 13 + [1]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_weights_are_those_of_a_multinomial_draw():
    weights = np.concatenate(list(bootstrap_weights(20, 20_000, seed=1)))

    # Each weight is Binomial(20, 1/20): mean 1, variance 0.95; two weights have covariance -1/20.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(weights.var(axis=0), 0.95, atol=0.06)
    assert np.cov(weights[:, 0], weights[:, 1])[0, 1] == pytest.approx(-0.05, abs=0.03)


def test_another_seed_draws_other_weights():
    first, second = (next(bootstrap_weights(30, 5, seed)) for seed in (0, 1))
    assert (first != second).any()


def test_bootstrap_of_a_mean_equals_drawing_the_examples_one_by_one():
    values = np.array([0.5, 2.0, 3.0, 10.0])
    weights = np.concatenate(list(bootstrap_weights(4, 25, seed=5)))
    drawn_means = [np.repeat(values, row.astype(int)).mean() for row in weights]

    np.testing.assert_allclose(bootstrap(weighted_mean(values), 4, resamples=25, seed=5), drawn_means)


def test_percentile_interval_of_known_values():
    interval = percentile_interval(50.0, np.arange(101.0))
    assert interval == Interval(50.0, pytest.approx(2.5), pytest.approx(97.5))


def test_undefined_resamples_are_left_out():
    resampled = np.array([math.nan, 1.0, 3.0, math.nan])
    interval = percentile_interval(2.0, resampled)
    assert interval == Interval(2.0, pytest.approx(1.05), pytest.approx(2.95))


@pytest.mark.parametrize(("value", "resampled"), [(math.nan, [1.0, 2.0]), (1.0, [math.nan, math.nan])])
def test_an_undefined_value_has_no_interval_and_is_null_in_json(value, resampled):
    interval = percentile_interval(value, np.array(resampled))

    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert json.loads(json.dumps(interval.to_dict(), allow_nan=False))["low"] is None


def test_the_negated_interval_keeps_its_ends_in_order():
    assert -Interval(1.0, -2.0, 5.0) == Interval(-1.0, -5.0, 2.0)


def test_95_percent_intervals_of_an_accuracy_hold_the_truth_about_95_times_in_100():
    generator = np.random.default_rng(0)
    truth, count, simulations = 0.8, 200, 400
    covered = 0
    for seed in range(simulations):
        correct = generator.random(count) < truth
        resampled = bootstrap(weighted_mean(correct), count, resamples=400, seed=seed)
        interval = percentile_interval(correct.mean(), resampled)
        covered += interval.low <= truth <= interval.high

    # Three standard errors of a share of 0.95 in 400 are 0.033; the percentile interval is a little short.
    assert 0.91 <= covered / simulations <= 0.98


def test_the_paired_interval_covers_a_true_difference_and_is_narrower_than_an_unpaired_one():
    generator = np.random.default_rng(1)
    count, covered, widths, unpaired = 300, 0, [], []
    for seed in range(200):
        hardness = generator.random(count)
        first = hardness + generator.normal(0, 0.1, count) < 0.8
        second = hardness + generator.normal(0, 0.1, count) < 0.75
        truth = _share_below(0.8) - _share_below(0.75)
        interval = paired_bootstrap(weighted_mean(first), weighted_mean(second), count, resamples=300, seed=seed)
        covered += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
        spread = first.var() / count + second.var() / count
        unpaired.append(2 * 1.96 * math.sqrt(spread))

    assert 0.89 <= covered / 200 <= 0.99
    assert np.mean(widths) < 0.75 * np.mean(unpaired)


def _share_below(limit: float) -> float:
    """P(U + N(0, 0.1) < limit) for U uniform on 0 to 1."""
    grid = np.linspace(0, 1, 100_001)
    return float(stats.norm.cdf((limit - grid) / 0.1).mean())


def test_a_model_against_itself_differs_by_nothing():
    statistic = weighted_mean(np.array([0.0, 1.0, 1.0]))
    assert paired_bootstrap(statistic, statistic, 3, resamples=20) == Interval(0.0, 0.0, 0.0)


def test_the_difference_the_other_way_round_is_the_negated_interval():
    generator = np.random.default_rng(2)
    first, second = (weighted_mean(generator.random(50)) for _ in range(2))
    forward, backward = paired_bootstrap(first, second, 50), paired_bootstrap(second, first, 50)

    assert (-backward).low == pytest.approx(forward.low)
    assert (-backward).high == pytest.approx(forward.high)


def test_mcnemar_by_hand():
    # Right alone: the first 5 times, the second never. Two-sided: 2 * (1/2) ** 5.
    first = np.array([True] * 5 + [True, False])
    second = np.array([False] * 5 + [True, False])
    result = mcnemar_exact(first, second)

    assert (result.b, result.c) == (5, 0)
    assert result.p_value == pytest.approx(2 / 32)


def test_mcnemar_without_a_disagreement_is_one():
    same = np.array([True, False, True])
    assert mcnemar_exact(same, same).p_value == 1.0


@given(b=st.integers(0, 60), c=st.integers(0, 60), both=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_mcnemar_agrees_with_statsmodels(b, c, both):
    first = np.array([True] * b + [False] * c + [True] * both, dtype=bool)
    second = np.array([False] * b + [True] * c + [True] * both, dtype=bool)
    assume(b + c > 0)
    expected = mcnemar([[both, b], [c, 0]], exact=True).pvalue
    assert mcnemar_exact(first, second).p_value == pytest.approx(min(expected, 1.0), abs=1e-9)


def test_the_jackknife_leaves_out_each_example_once():
    values = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(jackknife(weighted_mean(values), 3), [4.0, 3.5, 1.5])


def test_the_jackknife_of_a_single_example_is_its_value():
    assert jackknife(weighted_mean(np.array([3.0])), 1).tolist() == [3.0]


def test_beyond_the_exact_jackknife_blocks_are_left_out_and_give_much_the_same_interval(monkeypatch):
    values = np.random.default_rng(0).exponential(size=1500)
    statistic = weighted_mean(values)
    resampled = bootstrap(statistic, 1500)
    exact = bca_interval(values.mean(), resampled, jackknife(statistic, 1500))
    monkeypatch.setattr(statistics, "EXACT_JACKKNIFE", 1000)
    blocks = jackknife(statistic, 1500)
    grouped = bca_interval(values.mean(), resampled, blocks)

    assert blocks.shape == (statistics.JACKKNIFE_BLOCKS,)
    error = values.std() / math.sqrt(1500)
    assert grouped.low == pytest.approx(exact.low, abs=0.1 * error)
    assert grouped.high == pytest.approx(exact.high, abs=0.1 * error)


def test_bca_agrees_with_scipy_on_skewed_values():
    values = np.random.default_rng(3).exponential(size=40)
    statistic = weighted_mean(values)
    found = bca_interval(values.mean(), bootstrap(statistic, 40, resamples=20_000), jackknife(statistic, 40))
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))

    plain = percentile_interval(values.mean(), bootstrap(statistic, 40, resamples=20_000))
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.02)
    assert found.low > plain.low + 0.01
    assert found.high > plain.high + 0.02


def test_bca_of_a_paired_difference_of_a_metric_agrees_with_scipy():
    generator = np.random.default_rng(5)
    labels = np.arange(60) % 2
    first, second = (np.clip(labels * shift + generator.random(60), 0, 2) / 2 for shift in (0.6, 0.3))

    def area(probability):
        return METRICS["auroc"](Examples(labels, np.column_stack([1 - probability, probability])))

    def difference(*columns, axis=-1):
        rows = np.asarray(columns).reshape(3, -1, columns[0].shape[-1]).astype(float)
        areas = [[_auroc(y, p) for y, p in zip(rows[0], of_model, strict=True)] for of_model in rows[1:]]
        return np.squeeze(np.subtract(*areas))

    found = paired_bootstrap(area(first), area(second), 60, resamples=4000)
    expected = stats.bootstrap(
        (labels, first, second),
        difference,
        n_resamples=4000,
        paired=True,
        vectorized=True,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.015)
    assert found.high == pytest.approx(expected.high, abs=0.015)


def _auroc(labels, probability):
    positive, negative = probability[labels == 1], probability[labels == 0]
    return stats.mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))


def test_bca_without_a_resample_on_one_side_is_the_percentile_interval():
    resampled = np.arange(1.0, 11.0)
    assert bca_interval(0.0, resampled, np.arange(5.0)) == percentile_interval(0.0, resampled)


@pytest.mark.parametrize(("value", "resampled"), [(math.nan, [1.0, 2.0]), (1.0, [math.nan, math.nan])])
def test_an_undefined_value_has_no_bca_interval(value, resampled):
    assert math.isnan(bca_interval(value, np.array(resampled), np.array([1.0, 2.0])).low)


def both_means(first, second):
    return weighted_mean(np.concatenate([first, second]))


def test_the_permutation_test_agrees_with_scipy():
    generator = np.random.default_rng(0)
    first, second = generator.random(30), generator.random(30) * 0.8
    found = paired_permutation(both_means(first, second), 30, permutations=9999)
    expected = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(1),
    )
    assert found == pytest.approx(expected.pvalue, abs=0.015)


def test_the_permutation_test_of_accuracies_is_mcnemar_s():
    first = np.array([True] * 14 + [False] * 5 + [True] * 20)
    second = np.array([False] * 14 + [True] * 5 + [True] * 20)
    found = paired_permutation(both_means(first, second), 39, permutations=20_000)
    assert found == pytest.approx(mcnemar_exact(first, second).p_value, abs=0.01)


def test_the_permutation_test_takes_any_metric():
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 2, 80)
    sharp, blunt = (np.clip(0.5 + (labels - 0.5) * gain + generator.normal(0, 0.1, 80), 0, 1) for gain in (0.6, 0.1))
    probability = np.concatenate([sharp, blunt])
    area = METRICS["auroc"](Examples(np.tile(labels, 2), np.column_stack([1 - probability, probability])))

    assert paired_permutation(area, 80, permutations=499) == 1 / 500
    assert paired_permutation(both_means(labels, labels), 80, permutations=49) == 1.0


def test_permutations_of_several_metrics_at_once_are_those_of_each():
    first, second = np.random.default_rng(2).random((2, 30))
    means = both_means(first, second), both_means(first**2, second), lambda weights: np.full(len(weights), np.nan)
    found = paired_permutation(lambda weights: np.column_stack([mean(weights) for mean in means]), 30, permutations=99)
    assert found[:2].tolist() == [float(paired_permutation(mean, 30, permutations=99)) for mean in means[:2]]
    assert math.isnan(found[2])


@pytest.mark.parametrize(
    "p_values", [[0.03], [0.01, 0.04, 0.03], [0.02, 0.02, 0.5, 0.001, 0.02], [0.0, 1.0, 0.6], [0.4, 0.3, 0.2, 0.1]]
)
def test_holm_agrees_with_statsmodels(p_values):
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12)


def test_holm_of_nothing_is_nothing():
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_holm_keeps_the_order_of_p_values_and_lies_between_them_and_bonferroni_s(p_values):
    adjusted = np.array(holm(p_values))
    plain = np.array(p_values)
    assert (np.diff(adjusted[np.argsort(plain, kind="stable")]) >= 0).all()
    assert (adjusted >= plain).all()
    assert (adjusted <= np.minimum(plain * len(plain), 1)).all()
