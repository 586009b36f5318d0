import math

import numpy as np
import pytest

from app.comparison import lucky_seeds
from app.errors import RequestError
from app.luck import expected_best

NAMES = ("seed 0", "seed 1", "seed 2", "seed 3", "seed 4")


def test_a_seed_above_what_the_others_let_expect_is_lucky():
    found = lucky_seeds([0.751, 0.754, 0.748, 0.792, 0.752], NAMES)
    assert found.lucky == ("seed 3",)
    assert found.best == "seed 3"
    # Mean 0.75125, deviation 0.0025 of the others; t of 0.99 with 3 degrees is 4.541, times sqrt(5/4): 0.764.
    assert found.sentence == (
        "Lucky seed: seed 3 has 0.792, the other 4 let expect at most 0.764. Report the mean of all 5, not this run."
    )


def test_the_best_of_ordinary_seeds_is_chance_and_said_to_be():
    found = lucky_seeds([0.75, 0.76, 0.74, 0.765, 0.745], NAMES)
    assert found.lucky == ()
    assert found.gain == pytest.approx(0.013)
    # 1.163 standard deviations of 0.0104.
    assert found.expected_gain == pytest.approx(0.0121, abs=1e-4)
    assert found.sentence == (
        "The best of 5 seeds, seed 3, is 1.3 points above their mean; the best of 5 is 1.2 points above "
        "by chance alone. None is out of line."
    )


def test_an_unlucky_seed_is_not_a_lucky_one():
    assert lucky_seeds([0.75, 0.752, 0.748, 0.70, 0.751], NAMES).lucky == ()


def test_equal_seeds_have_a_lucky_one_about_once_in_20():
    draws = np.random.default_rng(0).normal(0.75, 0.01, size=(600, 5))
    lucky = np.mean([bool(lucky_seeds(row, NAMES).lucky) for row in draws])
    assert 0.025 <= lucky <= 0.08


@pytest.mark.parametrize(("count", "words"), [(1, "1 seed is too few"), (2, "2 seeds are too few")])
def test_fewer_than_three_seeds_tell_nothing(count, words):
    found = lucky_seeds([0.7, 0.8][:count], NAMES[:count])
    assert found.lucky == ()
    assert math.isnan(found.expected_gain)
    assert found.sentence == f"{words} to tell a lucky one."


def test_seeds_that_are_all_equal():
    assert lucky_seeds([0.75] * 3, NAMES[:3]).sentence == "All 3 seeds have the same accuracy."
    assert lucky_seeds([0.75, 0.75, 0.76], NAMES[:3]).lucky == ()


def test_the_best_of_three_normal_draws_by_hand():
    assert expected_best(3) == pytest.approx(3 / (2 * math.sqrt(math.pi)))


def test_each_accuracy_needs_a_name():
    with pytest.raises(RequestError, match="2 accuracies for 1 names"):
        lucky_seeds([0.1, 0.2], ["a"])
