"""What the gates are given: slices of the test split, corrected intervals, and that both sides answered alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app.analysis.slices import find_slices
from app.answers import Answers
from app.errors import RequestError
from app.gate_figures import SMALLEST_SLICE, accuracy_difference, check_same_texts, slice_changes
from app.statistics import bootstrap, percentile_interval, weighted_mean


def answers(name: str, correct: np.ndarray, label_ids: np.ndarray, **columns: list[str]) -> Answers:
    """The answers of a model that is right where it is said to be; text n has n pieces, the model reads 99."""
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


def test_slices_are_those_of_a_comparison():
    label_ids = np.array([0, 1] * 120)
    columns = {"source": ["web", "shop", "web"] * 80, "film": list(map(str, range(240)))}
    both = [answers(name, label_ids == 0, label_ids, **columns) for name in ("lstm", "linear")]
    found = {one.name: one.count for one in slice_changes(*both)}
    assert found == {
        "class: bad": 120,
        "class: good": 120,
        "length: 0 to 59 pieces": 60,
        "length: 60 to 119 pieces": 60,
        "length: 120 to 179 pieces": 60,
        "length: 180 to 239 pieces": 60,
        "cut: yes": 140,
        "cut: no": 100,
        "source: shop": 80,
        "source: web": 160,
    }
    assert found == {one.name: one.rows for one in find_slices(both, min_rows=SMALLEST_SLICE)}


def test_a_slice_of_few_texts_is_not_looked_at():
    sources = ["mail"] * 49 + ["web"] * 101 + ["shop"] * 150
    label_ids = np.array([0, 1] * 150)
    right = np.array([source == "mail" for source in sources])
    both = answers("lstm", right, label_ids, source=sources), answers("linear", ~right, label_ids, source=sources)
    found = {one.name: one for one in slice_changes(*both) if one.name.startswith("source")}
    assert set(found) == {"source: web", "source: shop"}
    assert found["source: web"].count == 101
    assert found["source: web"].difference.value == found["source: web"].difference.high == -1


def test_the_interval_of_a_slice_is_its_bootstrap_corrected_for_their_number():
    challenger, champion = pair()
    changes = slice_changes(challenger, champion)
    number = len(changes)
    assert number == 8
    change = weighted_mean(challenger.correct.astype(float) - champion.correct)
    rows = challenger.label_ids == 1
    of_slice = weighted_mean((challenger.correct.astype(float) - champion.correct)[rows])
    assert float(change(np.ones((1, 300)))[0]) < 0
    resampled = bootstrap(of_slice, int(rows.sum()), resamples=20_000)
    expected = percentile_interval(float(of_slice(np.ones((1, rows.sum())))[0]), resampled, level=1 - 0.05 / number)
    (found,) = (one.difference for one in changes if one.name == "class: good")
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
