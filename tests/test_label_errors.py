"""Confident learning: the sums of the paper by hand, and labels flipped on purpose come first."""

import json

import numpy as np
import pytest
from made_answers import made_answers

from app.analysis.label_errors import (
    NOWHERE,
    average_probabilities,
    confident_class,
    margin,
    out_of_sample_probabilities,
    suspects,
)
from app.errors import RequestError

# Thresholds: the mean over texts labelled 0 of p(0), (0.9 + 0.8 + 0.1) / 3 = 0.6, and (0.6 + 0.7 + 0.8) / 3 = 0.7.
LABELS = np.array([0, 0, 0, 1, 1, 1])
FIRST = np.array([0.9, 0.8, 0.1, 0.4, 0.3, 0.2])
PROBABILITIES = np.stack([FIRST, 1 - FIRST], axis=1)
TEXTS = [f"text {row}" for row in range(6)]


def test_the_confident_class_by_hand():
    assert confident_class(LABELS, PROBABILITIES).tolist() == [0, 0, 1, NOWHERE, 1, 1]


def test_the_suspects_by_hand():
    found = suspects(TEXTS, LABELS, PROBABILITIES, ("good", "bad"))
    (only,) = found.rows
    assert (only.row, only.text, only.label, only.suggested) == (2, "text 2", "good", "bad")
    assert only.margin == pytest.approx(-0.8)
    assert found.joint.tolist() == [[2, 1], [0, 2]]
    # A third of the three texts labelled good, none of the others.
    assert found.estimated_errors.value == pytest.approx(1)
    assert found.estimated_errors.low <= 1 <= found.estimated_errors.high


def test_the_margin_is_over_the_likeliest_other_class():
    assert margin(np.array([0, 2]), np.array([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])) == pytest.approx([0.2, -0.5])


def test_several_classes_reached_count_for_the_likeliest():
    probabilities = np.array([[0.45, 0.55, 0.0], [0.45, 0.55, 0.0], [0.1, 0.3, 0.6], [0.4, 0.6, 0.0]])
    assert confident_class(np.array([0, 0, 1, 2]), probabilities).tolist() == [1, 1, 2, 1]


def test_equal_probabilities_reach_their_own_mean():
    probabilities = np.tile([0.1, 0.9], (7, 1))
    assert confident_class(np.ones(7, dtype=np.int64), probabilities).tolist() == [1] * 7


WORDS = (
    ["great", "superb", "moving", "funny"],
    ["dull", "awful", "tedious", "clumsy"],
    ["long", "short", "early", "late"],
)


def labelled(rows=900, flipped=0.08, seed=0):
    """Texts of three classes, mostly told by their words, and which of their labels were made wrong."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 3, rows)
    texts = []
    for label in truth:
        own = chance.choice(WORDS[label], 3)
        texts.append(" ".join([*own, chance.choice(WORDS[chance.integers(0, 3)]), "film", "story"]))
    wrong = chance.random(rows) < flipped
    return texts, np.where(wrong, (truth + chance.integers(1, 3, rows)) % 3, truth), wrong


def test_flipped_labels_come_first():
    texts, labels, wrong = labelled()
    probabilities = out_of_sample_probabilities(texts, labels, 3)
    found = suspects(texts, labels, probabilities, ("a", "b", "c"))
    rows = [suspect.row for suspect in found.rows]
    first = rows[: round(0.05 * len(texts))]
    assert wrong[first].mean() >= 0.95
    assert wrong[rows].sum() >= 0.8 * wrong.sum()
    assert found.estimated_errors.low < wrong.sum() < found.estimated_errors.high
    margins = [suspect.margin for suspect in found.rows]
    assert margins == sorted(margins)


def test_clean_labels_have_hardly_a_suspect():
    texts, labels, _ = labelled(flipped=0)
    found = suspects(texts, labels, out_of_sample_probabilities(texts, labels, 3), ("a", "b", "c"))
    assert len(found.rows) <= 0.02 * len(texts)


def test_a_text_is_not_judged_by_its_own_label():
    # Each text has a word of its own: a model trained on the row would know its label by heart.
    texts = [f"only{row} only{row}x" for row in range(40)]
    labels = np.arange(40) % 2
    probabilities = out_of_sample_probabilities(texts + texts[:2], [*labels, 1, 0], 2)
    assert np.all(np.abs(probabilities[2:40, 0] - 0.5) < 0.2)


def test_siblings_are_kept_out_by_groups():
    texts = [f"film{row // 4} plot{row // 4}" for row in range(80)]
    labels, groups = (np.arange(80) // 4) % 2, [f"{row // 4}" for row in range(80)]
    alone = out_of_sample_probabilities(texts, labels, 2)
    grouped = out_of_sample_probabilities(texts, labels, 2, groups=groups)
    rows = np.arange(80)
    assert alone[rows, labels].mean() > 0.55
    assert grouped[rows, labels].mean() < 0.52


def test_few_groups_make_as_many_folds_and_may_hold_a_whole_class():
    texts, labels = labelled(rows=60)[0], np.arange(60) % 2
    by_class = out_of_sample_probabilities(texts, labels, 2, groups=[f"{label}" for label in labels])
    # Who learned from the one class alone knows no other.
    np.testing.assert_array_equal(by_class[np.arange(60), labels], 0.0)
    np.testing.assert_allclose(by_class.sum(axis=1), 1)
    with pytest.raises(RequestError, match="in one group"):
        out_of_sample_probabilities(texts, labels, 2, groups=["film"] * 60)


def test_a_class_without_texts_has_probability_zero():
    texts, labels, _ = labelled(rows=60)
    probabilities = out_of_sample_probabilities(texts, labels, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.all(probabilities[:, 3] == 0)
    assert suspects(texts, labels, probabilities, ("a", "b", "c", "d")).total == 60


def test_the_average_of_several_models_is_their_mean():
    first = made_answers([1, 0], confidence=0.9, temperature=1.0)
    second = made_answers([1, 1], name="linear", confidence=0.6)
    np.testing.assert_allclose(average_probabilities([first, second]), [[0.75, 0.25], [0.65, 0.35]])


def test_wrong_arguments_are_refused():
    with pytest.raises(RequestError, match="label id 1 has 1 texts"):
        out_of_sample_probabilities(["a b"] * 6, [0, 0, 0, 0, 0, 1], 2)
    with pytest.raises(RequestError, match="5 texts and 2 label names"):
        suspects(TEXTS[1:], LABELS, PROBABILITIES, ("good", "bad"))
    with pytest.raises(RequestError, match="sums to"):
        suspects(TEXTS, LABELS, PROBABILITIES * 0.5, ("good", "bad"))


def test_it_is_json():
    found = suspects(TEXTS, LABELS, PROBABILITIES, ("good", "bad")).to_dict(limit=10)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["suspects"] == 1
