import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from app.power import Equivalence, equivalence, examples_needed, mcnemar_power, smallest_difference
from app.statistics import mcnemar_exact


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


@pytest.mark.parametrize(("count", "discordant", "difference"), [(12, 0.5, 0.4), (40, 0.3, 0.2), (40, 0.3, 0.0)])
def test_exact_power_is_the_sum_over_every_table(count, discordant, difference):
    shares = (discordant + difference) / 2, (discordant - difference) / 2
    expected = 0.0
    for b in range(count + 1):
        for c in range(count + 1 - b):
            if b + c and stats.binomtest(b, b + c).pvalue < 0.05:
                expected += stats.multinomial.pmf([b, c, count - b - c], count, [*shares, 1 - sum(shares)])
    assert mcnemar_power(discordant, difference, count) == pytest.approx(expected, abs=1e-8)


def test_exact_power_is_the_share_of_simulated_tests_that_reject():
    generator = np.random.default_rng(0)
    rejected = 0
    for _ in range(1000):
        place = generator.random(300)
        first, second = place < 0.12, (place >= 0.12) & (place < 0.18)
        rejected += mcnemar_exact(first, second).p_value < 0.05
    # Three standard errors of a share near 0.6 in 1,000 are 0.046.
    assert rejected / 1000 == pytest.approx(mcnemar_power(0.18, 0.06, 300), abs=0.046)


def test_approximate_power_comes_close_on_large_test_sets_and_is_what_the_sample_size_is_made_from():
    assert mcnemar_power(0.1, 0.01, 20_000, exact=False) == pytest.approx(mcnemar_power(0.1, 0.01, 20_000), abs=0.005)
    needed = examples_needed(60, 40, 1000)
    assert mcnemar_power(0.1, 0.02, needed, exact=False) == pytest.approx(0.8, abs=0.001)
    assert mcnemar_power(0.1, 0.1, 1000, exact=False) == pytest.approx(1.0)


def test_power_under_equality_is_at_most_the_level_and_without_disagreement_nothing():
    assert 0.02 < mcnemar_power(0.2, 0.0, 500) <= 0.05
    assert mcnemar_power(0.2, 0.0, 500, exact=False) == pytest.approx(0.05)
    assert mcnemar_power(0.0, 0.0, 500) == 0


def test_the_smallest_difference_is_found_with_80_percent_power():
    found = smallest_difference(0.16, 1289)
    assert mcnemar_power(0.16, found, 1289) == pytest.approx(0.8, abs=1e-3)
    assert smallest_difference(0.16, 5000) < found < smallest_difference(0.16, 1289, level=0.05 / 3)


def test_a_test_set_that_can_show_nothing_has_no_smallest_difference():
    # Two texts on which they differ never give a p below 0.5.
    assert smallest_difference(0.02, 100) is None
    assert smallest_difference(0.0, 100) is None


def test_equivalence_by_hand():
    # Without a disagreement the likeliest tables have the margin on one side: z = sqrt(n * margin / (1 - margin)).
    found = equivalence(0, 0, 100, 0.05)
    assert found.p_value == pytest.approx(stats.norm.sf(math.sqrt(100 * 0.05 / 0.95)))
    assert found.shown
    assert not equivalence(0, 0, 5, 0.05).shown


@given(b=st.integers(0, 40), c=st.integers(0, 40), margin=st.floats(0.01, 0.2))
@settings(max_examples=40, deadline=None)
def test_equivalence_is_the_score_test_at_the_likeliest_tables_of_the_margin(b, c, margin):
    count = 150

    def score(b, c):
        """Of a true difference of -margin: the likeliest share of c, found by search."""

        def unlikely(share):
            return -(b * np.log(share - margin) + c * np.log(share) + (count - b - c) * np.log(1 - 2 * share + margin))

        ends = (margin + 1e-12, (1 + margin) / 2 - 1e-12)
        share = optimize.minimize_scalar(unlikely, bounds=ends, method="bounded", options={"xatol": 1e-10}).x
        return (b - c + count * margin) / math.sqrt(count * (2 * share - margin - margin**2))

    expected = stats.norm.sf(min(score(b, c), score(c, b)))
    assert equivalence(b, c, count, margin).p_value == pytest.approx(expected, abs=1e-4)


def test_equivalence_at_the_margin_is_seldom_shown():
    generator = np.random.default_rng(1)
    tables = generator.multinomial(400, [0.1, 0.06, 0.84], size=2000)
    shown = np.mean([equivalence(int(b), int(c), 400, 0.04).shown for b, c, _ in tables])
    assert 0.03 <= shown <= 0.065


def test_equivalence_is_json():
    assert Equivalence(0.02, 0.01).to_dict() == {"margin": 0.02, "p_value": 0.01, "shown": True}
