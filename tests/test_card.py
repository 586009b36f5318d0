"""The data card, with figures worked out by hand."""

import json

import numpy as np
import pytest

from data.card import DataCard, describe
from data.splits import Split, Splits


def part(ids: list[int], groups: list[str] | None = None) -> Split:
    texts = tuple(f"text {i}" for i in range(len(ids)))
    return Split(texts, np.array(ids, dtype=np.int32), tuple(groups) if groups else None)


def splits_of(
    train: Split,
    validation: Split,
    test: Split,
    labels: tuple[str, ...],
    counts: dict[str, int] | None = None,
) -> Splits:
    return Splits(
        name="films",
        origin="films.csv",
        label_names=labels,
        train=train,
        validation=validation,
        test=test,
        counts={"rows_read": 12, "blank": 1, "duplicates": 1, "contradictions": 0} | (counts or {}),
        how="split by film",
        fingerprint="0" * 64,
        group_name="film" if train.groups else None,
    )


@pytest.fixture
def card() -> DataCard:
    splits = splits_of(
        part([0, 1, 1, 1, 0, 1], ["Up", "Up", "Heat", "Heat", "Ran", "Ran"]),
        part([0, 1], ["Big", "Big"]),
        part([0, 1], ["M", "M"]),
        ("bad", "good"),
    )
    lengths = {
        "train": np.array([1, 2, 3, 4, 5, 6]),
        "validation": np.array([7, 8]),
        "test": np.array([9, 55]),
    }
    return describe(splits, lengths, {"train": 1, "validation": 0, "test": 4}, sequence_length=8)


def test_the_figures_are_those_worked_by_hand(card: DataCard) -> None:
    assert card.rows == {
        "train": {"bad": 2, "good": 4},
        "validation": {"bad": 1, "good": 1},
        "test": {"bad": 1, "good": 1},
    }
    assert card.groups == 5
    assert card.lengths.median == 5.5
    assert card.lengths.percentile_95 == pytest.approx(9 + 0.55 * 46)
    assert card.lengths.longest == 55
    assert card.truncated_share == 0.2
    assert card.unknown_rate == 5 / 100
    assert card.unknown_rate_by_split == {"train": 1 / 21, "validation": 0, "test": 4 / 64}
    assert card.imbalance_ratio == 2
    assert card.majority_share == {"train": 4 / 6, "validation": 0.5, "test": 0.5}


def test_the_lines_say_it_in_plain_words(card: DataCard) -> None:
    assert card.lines() == [
        "films: 10 texts of 5 films, 2 labels (good 60%, bad 40%)",
        "train 6, validation 2, test 2; split by film",
        "by class: good 4 / 1 / 1, bad 2 / 1 / 1",
        "dropped of 12 rows: 1 blank, 1 duplicates",
        "length: median 6 pieces, 95% up to 34, 99% up to 51, longest 55; 20.0% truncated at 8; [UNK] 5.00%",
        "largest class / smallest in training: 2.0; always answering the largest is right on 50.0% of test",
    ]


def test_the_card_is_json(card: DataCard) -> None:
    restored = json.loads(json.dumps(card.to_dict()))
    assert restored["rows"]["train"] == {"bad": 2, "good": 4}
    assert restored["lengths"]["longest"] == 55


def test_of_many_labels_the_largest_are_named() -> None:
    labels = tuple(f"label {i}" for i in range(8))
    ids = [*range(8), 7, 7, 3]
    splits = splits_of(part(ids), part([0]), part([1]), labels, {"blank": 0, "duplicates": 0})
    lengths = {"train": np.ones(11, int), "validation": np.ones(1, int), "test": np.ones(1, int)}
    card = describe(splits, lengths, {"train": 0, "validation": 0, "test": 0}, sequence_length=8)
    assert card.lines()[0] == (
        "films: 13 texts, 8 labels (label 7 23%, label 0 15%, label 1 15%, label 3 15%, label 2 8%, ... and 3 more)"
    )
    assert not any("dropped" in line for line in card.lines())
    assert card.groups is None


def test_groups_that_a_source_puts_on_two_sides_are_told() -> None:
    films = part([0, 1], ["Up", "Heat"])
    splits = splits_of(films, films, films, ("bad", "good"), {"groups_on_two_sides": 2})
    lengths = dict.fromkeys(("train", "validation", "test"), np.array([3, 4]))
    card = describe(splits, lengths, dict.fromkeys(lengths, 0), sequence_length=8)
    assert card.lines()[1].endswith("groups in training and elsewhere too, as given: 2")
