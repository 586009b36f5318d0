import math

import numpy as np
import pytest
from scipy import stats

from app.seeds import (
    SeedValues,
    Spread,
    examples_needed_with_seeds,
    hierarchical_bootstrap,
    hierarchical_interval,
    seeds_equivalence,
    seeds_test,
    smallest_difference_of_seeds,
    spread,
)
from app.statistics import bootstrap


def measured(right, seed=0, resamples=500):
    """The accuracy of each seed of bool[seeds, n], and of its resamples."""
    right = right.astype(float)
    count = right.shape[1]
    return SeedValues(
        right.mean(axis=1), bootstrap(lambda w: w @ right.T / count, count, resamples=resamples, seed=seed)
    )


def answers(generator, seeds, count, *, ease, spread_of_seeds=0.0):
    chance = 0.45 * generator.normal(size=(seeds, count)) + spread_of_seeds * generator.normal(size=(seeds, 1))
    return ease + chance > -0.7


def test_the_parts_of_the_variance_are_those_of_a_crossed_analysis():
    generator = np.random.default_rng(0)
    ease = generator.normal(size=300)
    right = answers(generator, 5, 300, ease=ease, spread_of_seeds=0.2).astype(float)
    found = spread(measured(right, resamples=20_000))

    # Mean squares of the seeds x examples table, by hand.
    rest = right - right.mean(axis=0) - right.mean(axis=1, keepdims=True) + right.mean()
    residual = (rest**2).sum() / (4 * 299)
    assert found.seeds == pytest.approx(right.mean(axis=1).var(ddof=1) / 5)
    assert found.interaction == pytest.approx(residual / (5 * 300), rel=0.05)
    assert found.examples == pytest.approx(right.mean(axis=0).var(ddof=1) / 300, rel=0.05)
    assert found.degrees == pytest.approx(4)


def test_the_degrees_of_freedom_are_those_of_welch_s_t_test():
    generator = np.random.default_rng(1)
    first, second = (generator.random((seeds, 60)) < 0.7 for seeds in (4, 6))
    found = spread(measured(first), measured(second))
    welch = stats.ttest_ind(first.mean(axis=1), second.mean(axis=1), equal_var=False)

    assert found.degrees == pytest.approx(welch.df)
    difference = first.mean() - second.mean()
    assert difference / math.sqrt(found.seeds) == pytest.approx(welch.statistic)


def test_without_a_spread_between_examples_the_test_is_welch_s():
    found = Spread(examples=0.0, seeds=0.0004, interaction=0.0, degrees=7.5)
    assert seeds_test(0.05, found, 100) == pytest.approx(2 * stats.t.sf(0.05 / 0.02, 7.5))


def test_a_single_seed_borrows_the_spread_of_the_other_model():
    generator = np.random.default_rng(2)
    several, single = measured(generator.random((5, 80)) < 0.7), measured(generator.random((1, 80)) < 0.7)
    forward, backward = spread(several, single), spread(single, several)

    assert forward == backward
    assert forward.seeds == pytest.approx(several.values.var(ddof=1) * (1 + 1 / 5))
    assert forward.degrees == pytest.approx(4)


def test_the_hierarchical_bootstrap_draws_seeds_and_the_same_examples_for_all():
    values = SeedValues(np.array([1.0, 3.0]), np.tile([1.0, 3.0], (400, 1)) + np.arange(400)[:, None])
    drawn = hierarchical_bootstrap(values)
    assert set(drawn - np.arange(400)) == {1.0, 2.0, 3.0}

    alike = SeedValues(np.full(3, 0.5), np.repeat(np.arange(400.0)[:, None], 3, axis=1))
    assert (hierarchical_bootstrap(alike, alike) == 0).all()


def test_seeds_are_drawn_apart_from_examples():
    # The examples' draws come from the same seed: a first draw of both would go together.
    count = 2
    right = SeedValues(np.array([0.0, 1.0]), np.tile([0.0, 1.0], (2000, 1)))
    examples = bootstrap(lambda w: w[:, 0] / count, count, seed=0)
    assert abs(np.corrcoef(hierarchical_bootstrap(right, seed=0), examples)[0, 1]) < 0.1


@pytest.mark.parametrize(("seeds", "spread_of_seeds"), [(2, 0.08), (5, 0.0), (5, 0.15)])
def test_intervals_cover_other_seeds_and_other_examples(seeds, spread_of_seeds):
    generator = np.random.default_rng(3)
    covered, width, plain = 0, [], []
    for number in range(250):
        ease = generator.normal(size=150)
        models = [
            measured(answers(generator, seeds, 150, ease=ease, spread_of_seeds=spread_of_seeds), number)
            for _ in range(2)
        ]
        found = hierarchical_interval(*models, seed=number)
        covered += found.low <= 0 <= found.high
        width.append(found.high - found.low)
        plain.append(np.ptp(np.quantile(hierarchical_bootstrap(*models, seed=number), [0.025, 0.975])))
    # Three standard errors of a share of 0.95 in 250 are 0.041.
    assert covered / 250 >= 0.91
    if spread_of_seeds == 0:
        # The plain bootstrap counts the chance of single answers twice.
        assert np.mean(width) < np.mean(plain)


def test_the_interval_of_one_model_is_around_its_mean():
    right = answers(np.random.default_rng(4), 5, 200, ease=0.0, spread_of_seeds=0.3)
    found = hierarchical_interval(measured(right))
    assert found.value == pytest.approx(right.mean())
    assert found.low < found.value < found.high


def test_seeds_that_all_answer_alike_leave_no_width_and_undefined_values_no_interval():
    alike = measured(np.ones((3, 20), dtype=bool))
    found = hierarchical_interval(alike)
    assert (found.low, found.value, found.high) == (1, 1, 1)
    undefined = SeedValues(np.full(2, math.nan), np.full((10, 2), math.nan))
    assert math.isnan(hierarchical_interval(undefined).low)


def test_a_few_differing_examples_are_not_enough_however_alike_the_seeds():
    nothing_varies = Spread(0.0, 0.0, 0.0, math.inf)
    assert seeds_test(1.0, nothing_varies, 5) == 2 / 2**5
    assert seeds_test(1.0, nothing_varies, 20) < 0.001
    assert seeds_test(0.0, nothing_varies, 0) == 1.0


def test_equal_configurations_are_seldom_told_apart_and_their_p_values_are_cautious():
    generator = np.random.default_rng(5)
    p_values = []
    for number in range(300):
        ease = generator.normal(size=120)
        first, second = (answers(generator, 3, 120, ease=ease, spread_of_seeds=0.05) for _ in range(2))
        differing = int(np.count_nonzero(first.mean(axis=0) != second.mean(axis=0)))
        of_seeds = spread(measured(first, number, 200), measured(second, number, 200))
        p_values.append(seeds_test(first.mean() - second.mean(), of_seeds, differing))
    assert np.mean(np.array(p_values) < 0.05) <= 0.05
    assert np.mean(np.array(p_values) < 0.01) <= 0.01


def test_equivalence_of_seeds_is_two_one_sided_t_tests():
    found = Spread(examples=0.00003, seeds=0.00002, interaction=0.0, degrees=8)
    total, degrees = 0.00005, 8 * (5 / 2) ** 2
    expected = stats.t.sf((0.03 - 0.01) / math.sqrt(total), degrees)
    assert seeds_equivalence(-0.01, found, 10_000, 0.03).p_value == pytest.approx(expected)


def test_alike_answers_to_a_few_examples_are_not_equivalence():
    assert not seeds_equivalence(0.0, Spread(0.0, 0.0, 0.0, math.inf), 5, 0.02).shown
    assert seeds_equivalence(0.0, Spread(0.0, 0.0, 0.0, math.inf), 5000, 0.02).shown


def test_examples_needed_take_the_seeds_as_they_are():
    found = Spread(examples=0.0002, seeds=0.0001, interaction=0.00004, degrees=8)
    needed = examples_needed_with_seeds(0.06, found, 1000, level=0.01)
    degrees = 8 * 3**2
    reach = stats.t.ppf(0.995, degrees) + stats.t.ppf(0.8, degrees)
    at_needed = 0.00006 + 0.00024 * 1000 / needed
    assert reach * math.sqrt(at_needed) == pytest.approx(0.06, rel=1e-3)


def test_more_seeds_are_needed_where_no_number_of_examples_is_enough():
    found = Spread(examples=0.0002, seeds=0.0001, interaction=0.00004, degrees=8)
    assert examples_needed_with_seeds(0.01, found, 1000, level=0.01) is None
    assert examples_needed_with_seeds(0.0, found, 1000, level=0.01) is None


def test_the_smallest_difference_is_about_found_with_80_percent_power():
    found = Spread(examples=0.0002, seeds=0.0001, interaction=0.0, degrees=8)
    smallest = smallest_difference_of_seeds(found, level=0.01)
    drawn = np.random.default_rng(6).normal(smallest, math.sqrt(0.0003), 4000)
    p_values = [seeds_test(value, found, 100) for value in drawn]
    assert np.mean(np.array(p_values) < 0.01) == pytest.approx(0.8, abs=0.03)
    assert smallest_difference_of_seeds(Spread(0.0, 0.0, 0.0, math.inf), level=0.01) is None
