"""What the gates are given: slices of the test split, corrected intervals, and that both sides answered alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app.answers import Answers
from app.errors import RequestError
from app.gate_figures import accuracy_difference, check_same_texts, slice_changes, slices_of
from app.statistics import bootstrap, percentile_interval, weighted_mean


def answers(name: str, correct: np.ndarray, label_ids: np.ndarray, **columns: list[str]) -> Answers:
    """The answers of a model that is right where it is said to be; text n has n tokens, the model reads 99."""
    count = len(label_ids)
    predicted = np.where(correct, label_ids, 1 - label_ids)
    return Answers(
        name=name,
        label_names=("bad", "good"),
        texts=tuple(f"text {row}" for row in range(count)),
        label_ids=label_ids,
        logits=np.eye(2)[predicted],
        temperature=1.0,
        num_tokens=np.arange(count),
        unknown_share=np.zeros(count),
        sequence_length=100,
        columns={column: np.array(values, dtype=object) for column, values in columns.items()},
    )


def pair(count: int = 300, seed: int = 0) -> tuple[Answers, Answers]:
    generator = np.random.default_rng(seed)
    label_ids = generator.integers(0, 2, count)
    sides = [generator.random(count) < share for share in (0.7, 0.8)]
    return answers("lstm", sides[0], label_ids), answers("linear", sides[1], label_ids)


def test_slices_are_labels_lengths_truncation_and_values_of_columns():
    label_ids = np.array([0, 1] * 60)
    asked = answers(
        "lstm", label_ids == 0, label_ids, source=["web", "shop", "web"] * 40, film=list(map(str, range(120)))
    )
    found = {name: int(rows.sum()) for name, rows in slices_of(asked)}
    assert found == {
        "label bad": 60,
        "label good": 60,
        "up to 40 tokens": 40,
        "40 to 79 tokens": 40,
        "more than 79 tokens": 40,
        "cut off": 20,
        "not cut off": 100,
        "source = shop": 40,
        "source = web": 80,
    }


def test_a_slice_of_few_texts_is_not_looked_at():
    label_ids = np.array([0] * 49 + [1] * 251)
    both = answers("lstm", label_ids == 0, label_ids), answers("linear", label_ids == 1, label_ids)
    assert "label bad" not in {one.name for one in slice_changes(*both)}
    (good,) = (one for one in slice_changes(*both) if one.name == "label good")
    assert good.count == 251
    assert good.difference.value == good.difference.high == -1


def test_the_interval_of_a_slice_is_its_bootstrap_corrected_for_their_number():
    challenger, champion = pair()
    changes = slice_changes(challenger, champion)
    number = len(changes)
    assert number == 7
    change = weighted_mean(challenger.correct.astype(float) - champion.correct)
    rows = challenger.label_ids == 1
    of_slice = weighted_mean((challenger.correct.astype(float) - champion.correct)[rows])
    assert float(change(np.ones((1, 300)))[0]) < 0
    resampled = bootstrap(of_slice, int(rows.sum()), resamples=20_000)
    expected = percentile_interval(float(of_slice(np.ones((1, rows.sum())))[0]), resampled, level=1 - 0.05 / number)
    (found,) = (one.difference for one in changes if one.name == "label good")
    assert found.value == pytest.approx(expected.value)
    assert found.low == pytest.approx(expected.low, abs=0.015)
    assert found.high == pytest.approx(expected.high, abs=0.015)


def test_the_difference_is_challenger_less_champion():
    challenger, champion = pair()
    found = accuracy_difference(challenger, champion)
    assert found.value == pytest.approx(challenger.correct.mean() - champion.correct.mean())
    assert found.low < found.value < found.high < 0


def test_sides_that_answered_other_texts_are_refused():
    challenger, champion = pair()
    check_same_texts(challenger, champion)
    for changed, what in (
        ({"texts": tuple(reversed(champion.texts))}, "texts differ"),
        ({"label_ids": 1 - champion.label_ids}, "labels of the texts differ"),
        ({"label_names": ("no", "yes")}, "label names differ"),
    ):
        with pytest.raises(RequestError, match=f"lstm and linear did not answer the same test split: their {what}"):
            check_same_texts(challenger, dataclasses.replace(champion, **changed))
