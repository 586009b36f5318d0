import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from app import statistics
from app.statistics import (
    Interval,
    bootstrap,
    bootstrap_weights,
    examples_needed,
    mcnemar_exact,
    paired_bootstrap,
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


def test_examples_needed_by_hand():
    # Discordant share 0.2, difference 0.1: (1.95996 * sqrt(.2) + 0.84162 * sqrt(.19)) ** 2 / .01 = 154.7
    assert examples_needed(15, 5, 100) == 155
    assert examples_needed(5, 15, 100) == 155


def test_no_number_of_examples_shows_no_difference():
    assert examples_needed(7, 7, 100) is None


def test_examples_needed_shrinks_with_the_difference_and_grows_with_power():
    assert examples_needed(30, 10, 1000) < examples_needed(25, 15, 1000)
    assert examples_needed(30, 10, 1000) < examples_needed(30, 10, 1000, power=0.95)


def test_that_many_examples_have_about_80_percent_power():
    b, c, count = 60, 40, 1000
    needed = examples_needed(b, c, count)
    generator = np.random.default_rng(0)
    draws = generator.multinomial(needed, [b / count, c / count, 1 - (b + c) / count], size=1000)
    rejected = [stats.binomtest(int(only_b), int(only_b + only_c)).pvalue < 0.05 for only_b, only_c, _ in draws]

    # The exact test is a little conservative; the standard error of the share is 0.013.
    assert 0.75 <= np.mean(rejected) <= 0.84
