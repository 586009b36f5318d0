"""What is compared is compared fairly: every kind of difference is refused, what is not known is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_answers import made_answers

from app.compared import Contestant
from app.comparing import judge, lock_lines, not_known
from app.entries import Entry
from app.errors import RequestError
from app.fairness import MEANINGS, Lock

LOCK = Lock(**{field: field[0] * 64 for field in MEANINGS})


def entries(*locks: Lock) -> list[Entry]:
    names = ("lstm", "transformer", "linear")
    return [
        Entry(Contestant(name, (made_answers(np.ones(4, bool), name=name),)), lock)
        for name, lock in zip(names, locks, strict=False)
    ]


@pytest.mark.parametrize("value", ["f" * 64, ""])
@pytest.mark.parametrize(("field", "meaning"), MEANINGS.items())
def test_every_kind_of_difference_is_refused_and_labelled_when_wanted_anyway(field: str, meaning: str, value: str):
    both = entries(LOCK, replace(LOCK, **{field: value}))
    with pytest.raises(RequestError) as refused:
        judge(both, anyway=False)
    line = next(line for line in str(refused.value).splitlines() if line.startswith(f"- {meaning}: "))
    assert "lstm" in line
    assert "transformer" in line
    label = judge(both, anyway=True)
    assert label == f"not a fair comparison: {line.removeprefix('- ')}"


def test_equal_locks_are_fair_and_nothing_is_unknown():
    both = entries(LOCK, LOCK)
    assert judge(both, anyway=False) == ""
    assert not_known(both) == {}
    assert all(line.is_same for line in lock_lines(both))


@pytest.mark.parametrize(
    ("locks", "said"),
    [
        ((Lock(), Lock()), "how these models were trained is not known"),
        ((LOCK, Lock()), "how transformer was trained is not known"),
        ((Lock(), LOCK, Lock()), "how lstm and linear were trained is not known"),
        (
            (replace(LOCK, pipeline="", class_weights=""),) * 2,
            "not logged for lstm and transformer: the pipeline from text to batches, the class weights",
        ),
        (
            (replace(LOCK, data=""), LOCK, replace(LOCK, metrics="")),
            "not logged for lstm: the rows; not logged for linear: the code of the metrics",
        ),
    ],
)
def test_what_is_not_known_is_told_of_the_models_it_is_not_known_of(locks: tuple[Lock, ...], said: str):
    assert not_known(entries(*locks)) == {"fair comparison": said}


def test_what_is_logged_for_none_does_not_pass_for_the_same():
    lines = {line.what: line for line in lock_lines(entries(*(replace(LOCK, vocabulary=""),) * 2))}
    assert not lines["the vocabulary"].is_known
    assert not lines["the vocabulary"].is_same
    assert lines["the rows"].is_same
