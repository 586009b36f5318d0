"""Slices found from the data: what they are made of, and that a kind of text made wrong on purpose is ranked first."""

import json

import numpy as np
import pytest
from made_answers import made_answers

from app.analysis.features import OTHER, column, crossed, features, length, unknown
from app.analysis.slices import find_slices

CHANCE = np.random.default_rng(0)
ROWS = 600
NEGATED = np.arange(ROWS) % 5 == 1
ASKED = np.arange(ROWS) % 7 == 0
TEXTS = [
    f"I {'did not' if negated else 'did'} like film {row}{'?' if asked else '.'}"
    for row, (negated, asked) in enumerate(zip(NEGATED, ASKED, strict=True))
]
NUM_TOKENS = CHANCE.integers(5, 60, ROWS)
SOURCES = np.array(["web", "mail", "phone"], dtype=object)[CHANCE.integers(0, 3, ROWS)]


def answers(right, name="lstm", **more):
    return made_answers(
        right, name=name, texts=TEXTS, num_tokens=NUM_TOKENS, columns={"source": SOURCES}, confidence=0.8, **more
    )


def spoiled(mask, share=0.5, seed=1):
    """Right on 80% of texts, and then wrong on that share of those in the mask."""
    chance = np.random.default_rng(seed)
    return (chance.random(ROWS) < 0.8) & ~(mask & (chance.random(ROWS) < share))


@pytest.mark.parametrize(
    ("mask", "name"),
    [
        (NEGATED, "negation: yes"),
        (ASKED, "question mark: yes"),
        (SOURCES == "mail", "source: mail"),
        (NUM_TOKENS >= 48, "length: 48 to 59 pieces"),
    ],
)
def test_a_slice_made_wrong_on_purpose_is_ranked_first(mask, name):
    found = find_slices([answers(spoiled(mask)), answers(spoiled(np.zeros(ROWS, bool)), "linear")])
    assert found[0].name == name
    assert found[0].models[0].is_worse
    assert not found[0].models[1].is_worse
    assert found[0].pairs[0].is_different
    assert found[0].pairs[0].difference.high < 0
    assert [one.name for one in found if any(model.is_worse for model in one.models)] == [name]


def test_models_without_a_weak_spot_have_no_worse_slice():
    nowhere = np.zeros(ROWS, bool)
    chances = [find_slices([answers(spoiled(nowhere, seed=seed))]) for seed in range(40)]
    false_alarms = sum(any(one.models[0].is_worse for one in found) for found in chances)
    assert false_alarms <= 5  # 5% of 40 are expected at most


def test_too_few_texts_have_no_slices():
    assert find_slices([made_answers([1, 0] * 10), made_answers([1, 1] * 10, name="linear")]) == ()


def test_figures_of_a_slice_by_hand():
    right = np.ones(80, bool)
    right[:10] = False
    groups = np.array(["a"] * 40 + ["b"] * 40, dtype=object)
    first = made_answers(right, columns={"group": groups})
    second = made_answers(np.ones(80, bool), name="linear", columns={"group": groups})
    found = {one.name: one for one in find_slices([first, second])}
    slice_a = found["group: a"]
    assert slice_a.rows == 40
    assert (slice_a.models[0].accuracy.value, slice_a.models[0].rest.value) == (0.75, 1.0)
    assert slice_a.models[0].gap.value == 0.25
    assert 0 < slice_a.models[0].gap.low < 0.25 < slice_a.models[0].gap.high
    assert found["group: b"].models[0].gap.value == -0.25
    assert (slice_a.pairs[0].mcnemar.b, slice_a.pairs[0].mcnemar.c) == (0, 10)
    assert slice_a.pairs[0].mcnemar.p_value == pytest.approx(2 / 2**10)
    assert slice_a.pairs[0].difference.value == -0.25
    # Four slices (two groups, two classes) and two models: eight tests, of which this one is the smallest.
    assert len(found) == 4
    assert slice_a.models[0].corrected == pytest.approx(8 * slice_a.models[0].p_value)
    assert slice_a.pairs[0].corrected == pytest.approx(4 * 2 / 2**10)


def test_two_features_together_are_found_and_corrected_for():
    mask = NEGATED & (SOURCES == "web")
    single = find_slices([answers(spoiled(mask, 1.0))])
    double = find_slices([answers(spoiled(mask, 1.0))], depth=2)
    assert double[0].name == "negation: yes, source: web"
    assert len(double) > len(single)
    assert double[0].models[0].corrected > 3 * double[0].models[0].p_value


def test_a_language_without_the_negation_words_has_no_such_slice():
    texts = [f"这部电影很好看 {row}" for row in range(100)]
    found = find_slices([made_answers([1] * 100, texts=texts, num_tokens=np.arange(100))])
    assert {one.feature for one in found} == {"length", "class"}


@pytest.mark.parametrize("text", ["it isn't", "it isn’t", "it is n't", "NEVER", "didnt like", "cannot", "no."])
def test_negations_are_recognised(text):
    made = made_answers([1] * 4, texts=[text, text, "knot a note", "a notable film"])
    negation = next(one for one in features(made, 1) if one.name == "negation")
    assert [negation.values[value_id] for value_id in negation.value_ids] == ["yes", "yes", "no", "no"]


def test_bins_of_length_hold_about_as_many_texts():
    bins = length(np.array([1, 2, 3, 4, 5, 6, 7, 8]))
    assert bins.values == ("1 to 2 pieces", "3 to 4 pieces", "5 to 6 pieces", "7 to 8 pieces")
    assert bins.value_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_equal_lengths_share_a_bin():
    bins = length(np.array([3] * 9 + [8]))
    assert bins.values == ("3 pieces", "8 pieces")


def test_unknown_pieces_make_three_values():
    found = unknown(np.array([0, 0.01, 0.05, 0.051, 1]))
    assert [found.values[value_id] for value_id in found.value_ids] == [
        *("none", "up to 5%", "up to 5%", "above 5%", "above 5%")
    ]


def test_rare_values_of_a_column_are_pooled():
    found = column("film", ["a"] * 5 + ["b"] * 3 + ["c"] + [None] * 3 + [""], 3)
    assert found.values == ("a", "no value", "b", OTHER)
    assert np.bincount(found.value_ids).tolist() == [5, 4, 3, 1]


def test_only_the_largest_values_of_a_column_are_kept():
    found = column("film", [str(value) for value in range(50) for _ in range(50 - value)], 1)
    assert len(found.values) == 21
    assert found.values[:2] == ("0", "1")
    assert np.bincount(found.value_ids)[-1] == sum(range(1, 31))


def test_crossed_features_keep_every_pair_of_values():
    first, second = column("a", ["x", "y", "x"], 1), column("b", ["u", "u", "v"], 1)
    both = crossed(first, second)
    assert [both.values[value_id] for value_id in both.value_ids] == ["x, b: u", "y, b: u", "x, b: v"]


def test_it_is_json():
    found = [one.to_dict() for one in find_slices([answers(spoiled(NEGATED)), answers(spoiled(ASKED), "linear")])]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
