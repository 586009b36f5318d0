"""The lock of a fair comparison: what it is made of, and how a difference is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.config import resolve_config
from app.fairness import Lock, bare_code, code_fingerprint, differences, label, make_lock, refusal, starts

LOCK = Lock(
    data="da7a" * 16,
    split="5b11" * 16,
    vocabulary="40ca" * 16,
    pipeline="b1be" * 16,
    metrics="3e75" * 16,
    tuning_budget="0",
    class_weights="none",
)
FINGERPRINTS = {"data": "d", "split": "s", "vocabulary": "v", "pipeline": "p"}


def test_a_lock_goes_into_tags_and_back():
    tags = LOCK.to_tags()
    assert tags["fingerprint.data"] == LOCK.data
    assert tags["fingerprint.tuning_budget"] == "0"
    assert Lock.from_tags({**tags, "model": "lstm"}) == LOCK
    assert Lock.from_tags({}) == Lock()


def test_a_lock_knows_the_settings_that_a_run_was_favoured_by():
    config = resolve_config("lstm", {}, ["tuning_budget_minutes=90", "fit.class_weights=balanced"])
    lock = make_lock(FINGERPRINTS, config)
    assert (lock.data, lock.split, lock.vocabulary, lock.pipeline) == ("d", "s", "v", "p")
    assert (lock.tuning_budget, lock.class_weights) == ("90", "balanced")
    assert len(lock.metrics) == 64


def test_the_seed_and_the_model_are_no_part_of_it():
    one = make_lock(FINGERPRINTS, resolve_config("lstm", {}, ["seed=1"]))
    assert one == make_lock(FINGERPRINTS, resolve_config("linear", {}, ["seed=2", "model.epochs=3"]))


def test_what_training_started_from_is_said_of_each_and_brings_its_own_vocabulary():
    from_text = replace(LOCK, start="vectors learned from lines (9 texts)", vocabulary="0dd0" * 16)
    names, locks = ["lstm", "cnn", "linear"], [from_text, from_text, LOCK]
    assert starts(names, locks) == (
        "lstm and cnn start from vectors learned from lines (9 texts); linear starts from random weights"
    )
    assert Lock.from_tags(from_text.to_tags()) == from_text
    assert label(names, locks) is None
    assert "vocabulary" in str(label(names, [from_text, replace(from_text, vocabulary="1"), LOCK]))
    assert starts(["linear"], [LOCK]) is None


SOURCE = '''"""A module."""

RATE = 0.5  # of everything


def share(part, whole):
    """The share.

    Longer.
    """
    # Never zero.
    text = "# kept"

    return RATE * part / whole, text
'''


def test_comments_docstrings_and_blank_lines_are_no_code():
    assert bare_code(SOURCE) == (
        'RATE = 0.5\ndef share(part, whole):\n    text = "# kept"\n    return RATE * part / whole, text'
    )


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# Never zero.", "# Zero is refused before.", True),
        ("The share.", "Part of a whole.", True),
        ("\n\ndef", "\ndef", True),
        ("0.5", "0.6", False),
        ("part / whole", "part // whole", False),
        ('"# kept"', '"# changed"', False),
    ],
)
def test_only_code_changes_the_hash(old, new, same):
    assert (code_fingerprint([SOURCE]) == code_fingerprint([SOURCE.replace(old, new)])) is same


def test_equal_locks_have_no_difference():
    assert differences(LOCK, LOCK) == []
    assert refusal(["a", "b"], [LOCK, LOCK]) is None
    assert label(["a", "b"], [LOCK, LOCK]) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "ffff" * 16}, "which row is in which split (5b115b11 against ffffffff)"),
        ({"vocabulary": "ffff" * 16}, "the vocabulary (40ca40ca against ffffffff)"),
        ({"pipeline": ""}, "the pipeline from text to batches (b1beb1be against not logged)"),
        ({"metrics": "ffff" * 16}, "the code of the metrics (3e753e75 against ffffffff)"),
        ({"tuning_budget": "90"}, "the tuning budget (0 min against 90 min)"),
        ({"class_weights": "balanced"}, "the class weights (none against balanced)"),
    ],
)
def test_a_difference_is_named_with_both_values(change, said):
    assert [str(found) for found in differences(LOCK, replace(LOCK, **change))] == [said]


def test_of_other_rows_the_split_is_not_named_too():
    other = replace(LOCK, data="ffff" * 16, split="eeee" * 16)
    assert [str(found) for found in differences(LOCK, other)] == ["the rows (da7ada7a against ffffffff)"]


def test_a_refusal_names_all_that_differs_and_the_way_on():
    locks = [LOCK, replace(LOCK, class_weights="balanced", tuning_budget="90"), replace(LOCK, tuning_budget="90")]
    assert refusal(["linear", "lstm", "transformer"], locks) == (
        "linear, lstm and transformer were not trained and measured alike. They differ in:\n"
        "- the tuning budget: linear 0 min, lstm and transformer 90 min\n"
        "- the class weights: linear and transformer none, lstm balanced\n"
        "Train them with one command, or compare them all the same with --anyway."
    )
    assert label(["linear", "lstm", "transformer"], locks) == (
        "not a fair comparison: the tuning budget: linear 0 min, lstm and transformer 90 min; "
        "the class weights: linear and transformer none, lstm balanced"
    )
