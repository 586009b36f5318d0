import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from app.analysis.proportions import difference, lower_than, paired_difference, proportion


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_interval_of_a_share_is_wilson_s(rows, part):
    hits = round(part * rows)
    found = proportion(hits, rows)
    assert found.value == hits / rows
    assert (found.low, found.high) == pytest.approx(proportion_confint(hits, rows, method="wilson"), abs=1e-12)


def test_no_rows_have_no_share():
    assert math.isnan(proportion(0, 0).value)
    assert proportion(0, 0).to_dict() == {"value": None, "low": None, "high": None}


def test_fisher_by_hand():
    # 0 of 2 against 2 of 2: of the 6 ways to place two hits among four, one is so.
    assert lower_than(0, 2, 2, 2) == pytest.approx(1 / 6)
    assert lower_than(2, 2, 0, 2) == pytest.approx(1)
    assert lower_than(0, 0, 2, 2) == 1


@given(st.integers(1, 200), st.floats(0, 1), st.integers(1, 200), st.floats(0, 1))
def test_a_difference_is_newcombe_s(rows, part, other_rows, other_part):
    hits, other_hits = round(part * rows), round(other_part * other_rows)
    found = difference(proportion(hits, rows), proportion(other_hits, other_rows))
    expected = confint_proportions_2indep(hits, rows, other_hits, other_rows, method="newcomb")
    assert found.value == hits / rows - other_hits / other_rows
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def test_a_paired_difference_by_hand():
    # b 12.5, c 4.5, n 102: 8 / 102, spread sqrt(17 - 64 / 102) / 102.
    found = paired_difference(12, 4, 100)
    spread = math.sqrt(17 - 64 / 102) / 102
    assert found.value == pytest.approx(0.08)
    assert found.low == pytest.approx(8 / 102 - 1.959964 * spread, abs=1e-6)
    assert found.high == pytest.approx(8 / 102 + 1.959964 * spread, abs=1e-6)


def test_a_paired_difference_covers_what_it_should():
    chance = np.random.default_rng(0)
    truth, rows = 0.10, 80
    cells = chance.multinomial(rows, [0.20, 0.10, 0.70], size=2000)
    intervals = [paired_difference(b, c, rows) for b, c, _ in cells]
    covered = np.mean([one.low <= truth <= one.high for one in intervals])
    assert 0.935 <= covered <= 0.97
