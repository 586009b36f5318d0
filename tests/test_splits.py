"""No text and no group on two sides, the same split from the same seed, and the errors of both."""

import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.sources import DataConfig, RawRows
from data.splits import SPLITS, Splits, load_splits, make_splits, order_labels, text_key

Row = tuple[str, str, str | None, str | None]  # text, label, split, group


def raw(rows: list[Row], group_name: str | None = None, blank: int = 0) -> RawRows:
    frame = pd.DataFrame(rows, columns=["text", "label", "split", "group"], dtype=object)
    frame.index = pd.Index([f"t.csv, line {i + 2}" for i in range(len(rows))])
    return RawRows("t", frame, "t.csv", blank, group_name)


def split(rows: list[Row], group_name: str | None = None, **options: Any) -> Splits:
    return make_splits(raw(rows, group_name), DataConfig(source="t.csv", **options))


def plain(count: int, labels: str = "ab") -> list[Row]:
    return [(f"text {i}", labels[i % len(labels)], None, None) for i in range(count)]


def sizes(splits: Splits) -> list[int]:
    return [len(part) for _, part in splits.items()]


def labelled(splits: Splits, name: str) -> list[tuple[str, str]]:
    part = dict(splits.items())[name]
    return [(text, splits.label_names[i]) for text, i in zip(part.texts, part.label_ids, strict=True)]


# Cutting off what is not given


def test_without_splits_each_class_is_cut_80_10_10() -> None:
    rows: list[Row] = [(f"text {i}", "rare" if i % 10 == 0 else "common", None, None) for i in range(1000)]
    splits = split(rows)
    assert sizes(splits) == [800, 100, 100]
    assert splits.label_names == ("common", "rare")
    assert [Counter(part.label_ids.tolist()) for _, part in splits.items()] == [
        {0: 720, 1: 80},
        {0: 90, 1: 10},
        {0: 90, 1: 10},
    ]
    assert splits.how == "seeded, stratified"
    assert all(part.groups is None for _, part in splits.items())
    assert splits.train.label_ids.dtype == np.int32


def test_every_class_of_three_rows_has_one_in_each_split() -> None:
    splits = split(plain(1000, "a") + [(f"rare {i}", "z", None, None) for i in range(3)])
    assert [int((part.label_ids == 1).sum()) for _, part in splits.items()] == [1, 1, 1]


def test_fractions_are_fractions_of_all_rows() -> None:
    assert sizes(split(plain(200), validation_fraction=0.25, test_fraction=0.5)) == [50, 50, 100]
    assert sizes(split(plain(8), validation_fraction=0.45, test_fraction=0.45)) == [2, 2, 4]


def test_only_the_missing_split_is_cut_off_the_training_rows() -> None:
    test: list[Row] = [("t1", "a", "test", None), ("t2", "b", "test", None)]
    validation: list[Row] = [("v1", "a", "validation", None)]
    train: list[Row] = [(text, label, "train", None) for text, label, _, _ in plain(100)]
    with_test = split(train + test)
    assert sizes(with_test) == [90, 10, 2]
    assert with_test.test.texts == ("t1", "t2")
    assert with_test.how == "validation seeded, stratified, the rest as given"
    assert sizes(split(train + validation)) == [90, 1, 10]
    assert sizes(split(train)) == [80, 10, 10]
    all_given = split(train + validation + test)
    assert (sizes(all_given), all_given.how) == ([100, 1, 2], "as given")


def test_rows_keep_their_order_within_a_split() -> None:
    for _, part in split(plain(100)).items():
        numbers = [int(text.removeprefix("text ")) for text in part.texts]
        assert numbers == sorted(numbers)


def test_a_seed_decides_the_split_and_so_does_the_order_of_the_rows() -> None:
    rows = plain(100)
    assert split(rows).fingerprint == split(rows).fingerprint
    assert split(rows, split_seed=1).test.texts != split(rows).test.texts
    assert set(split(rows[::-1]).test.texts) != set(split(rows).test.texts)


# Groups


def grouped(groups: int, rows_each: int = 5) -> list[Row]:
    return [(f"{g} {i}", "ab"[i % 2], None, f"film {g}") for g in range(groups) for i in range(rows_each)]


def test_groups_are_cut_whole_and_in_proportion() -> None:
    splits = split(grouped(100), group_name="film")
    assert sizes(splits) == [400, 50, 50]
    assert splits.how == "split by film"
    films = [set(part.groups or ()) for _, part in splits.items()]
    assert len(set.union(*films)) == sum(map(len, films)) == 100
    assert all(
        text.startswith(film.removeprefix("film "))
        for text, film in zip(splits.test.texts, splits.test.groups or (), strict=True)
    )


@pytest.mark.parametrize(("fraction", "expected"), [(0.15, 150), (0.3, 300), (0.4, 400), (0.02, 20)])
def test_grouped_fractions_are_met_in_folds(fraction: float, expected: int) -> None:
    splits = split(grouped(200), group_name="film", test_fraction=fraction)
    assert len(splits.test) == expected


def test_with_test_given_validation_is_cut_by_group_and_shared_groups_are_counted() -> None:
    rows: list[Row] = [(text, label, "train", group) for text, label, _, group in grouped(40)]
    rows += [("t1", "a", "test", "film 0"), ("t2", "b", "test", "another")]
    splits = split(rows, group_name="film")
    assert not set(splits.train.groups or ()) & set(splits.validation.groups or ())
    assert splits.how == "validation split by film, the rest as given"
    assert splits.counts["groups_on_two_sides"] == 1


def test_too_few_groups_are_refused() -> None:
    assert all(sizes(split(grouped(3), group_name="film")))
    with pytest.raises(DataError, match=r"t\.csv: label 'a' stands in too few groups by film.*2, and it needs 3"):
        split(grouped(2), group_name="film")
    lonely: list[Row] = [(f"only here {i}", "c", None, "film 1") for i in range(9)]
    with pytest.raises(DataError, match="label 'c' stands in too few groups by film"):
        split(grouped(50) + lonely, group_name="film")


# Copies


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("A  small\tgem\n", "a small gem"),
        ("ﬁlm", "film"),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("STRASSE", "straße"),
        ("non\u00a0breaking", "non breaking"),
    ],
)
def test_texts_that_read_the_same_are_equal(text: str, other: str) -> None:
    assert text_key(text) == text_key(other)


def test_copies_keep_the_first_and_contradictions_none() -> None:
    rows = plain(30)
    rows[3:3] = [("A gem", "a", None, None), ("a  GEM", "a", None, None)]
    rows += [("so so", "a", None, None), ("So so", "b", None, None), ("so so ", "a", None, None)]
    splits = split(rows)
    assert splits.counts["rows_read"] == 35
    assert splits.counts["duplicates"] == 1
    assert splits.counts["contradictions"] == 3
    texts = [text for _, part in splits.items() for text in part.texts]
    assert sorted(texts) == sorted([text for text, *_ in plain(30)] + ["A gem"])


def test_files_of_the_same_name_are_split_like_any_others(tmp_path: Path) -> None:
    for folder, text in [("train", "seen"), ("test", "new")]:
        (tmp_path / folder).mkdir()
        lines = [f"{text} {i},{'ab'[i % 2]}" for i in range(20)] + ["both,a"]
        (tmp_path / folder / "rows.csv").write_text("\n".join(["text,label", *lines]))
    splits = load_splits(DataConfig(source=f"{tmp_path}/train/rows.csv", test=tmp_path / "test" / "rows.csv"))
    assert sizes(splits) == [18, 2, 21]
    assert splits.counts["train_rows_also_in_test"] == 1


def test_splits_that_are_given_stay_whole_and_their_copies_elsewhere_go() -> None:
    rows: list[Row] = [
        ("one", "a", "train", None),
        ("two", "b", "train", None),
        ("Test text", "a", "train", None),
        ("test TEXT", "b", "train", None),
        ("valid text", "a", "train", None),
        ("valid text", "b", "validation", None),
        ("valid text", "b", "validation", None),
        ("test text", "b", "validation", None),
        ("test text", "a", "test", None),
        ("test text", "b", "test", None),
    ]
    splits = split(rows)
    assert labelled(splits, "train") == [("one", "a"), ("two", "b")]
    assert labelled(splits, "validation") == [("valid text", "b")] * 2
    assert labelled(splits, "test") == [("test text", "a"), ("test text", "b")]
    assert splits.counts == {
        "rows_read": 10,
        "blank": 0,
        "validation_rows_also_in_test": 1,
        "train_rows_also_in_test": 2,
        "train_rows_also_in_validation": 1,
        "duplicates": 0,
        "contradictions": 0,
    }


# Labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["b", "a", "B"], ("B", "a", "b")),
        (["10", "9", "none"], ("10", "9", "none")),
        (["1.5", "1", "10"], ("1", "1.5", "10")),
    ],
)
def test_labels_are_ordered_by_number_only_if_all_are_integers(labels: list[str], expected: tuple[str, ...]) -> None:
    assert order_labels(labels) == expected


def test_label_order_is_that_of_all_splits_together() -> None:
    train: list[Row] = [(f"x {label} {i}", label, "train", None) for label in "cba" for i in range(3)]
    splits = split([("t", "b", "test", None), *train])
    assert splits.label_names == ("a", "b", "c")
    assert labelled(splits, "test") == [("t", "b")]


# Errors


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (plain(10, "a"), "t.csv has a single label, 'a'. At least two are needed."),
        (
            [*plain(30), ("x", "c", None, None), ("y", "c", None, None)],
            "label 'c' has too few different texts to be split: 2, and it needs 3",
        ),
        ([("x", "a", "test", None), ("y", "b", "test", None)], "t.csv has no training rows, only test."),
        (
            [("x", "a", "train", None), ("y", "b", "train", None), ("z", "c", "test", None)],
            "label 'c' is in the test split, but no row left in training has it. Training has: a, b.",
        ),
        (
            [
                ("x", "a", "train", None),
                ("y", "b", "train", None),
                ("v", "a", "validation", None),
                ("y", "b", "test", None),
            ],
            "t.csv, line 5: label 'b' is in the test split, but no row left in training has it.",
        ),
        ([*plain(30), ("x", "c", None, None), ("x", "a", None, None)], "no text with label 'c' is left"),
        (
            [
                ("x", "a", "train", None),
                ("y", "b", "train", None),
                ("v", "a", "validation", None),
                ("v", "a", "test", None),
            ],
            "no row is left for the validation split",
        ),
    ],
)
def test_rows_that_cannot_be_split_are_refused(rows: list[Row], message: str) -> None:
    with pytest.raises(DataError) as refused:
        split(rows)
    assert message in str(refused.value)


# Fingerprint


def test_the_fingerprint_is_the_same_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame(plain(40), columns=["text", "label", "x", "y"]).to_csv(path, index=False)
    program = "import sys; from data.splits import *; "
    program += "print(load_splits(DataConfig(source=sys.argv[1])).fingerprint)"
    other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    here = load_splits(DataConfig(source=str(path)))
    assert other.stdout.strip() == here.fingerprint
    assert len(here.fingerprint) == 64


def test_the_fingerprint_changes_with_text_label_membership_and_label_names() -> None:
    def rows(text: str = "x", label: str = "a", place: str = "test") -> list[Row]:
        fixed: list[Row] = [("1", "a", "train", None), ("2", "b", "train", None)]
        fixed += [("v", "a", "validation", None), ("t", "a", "test", None)]
        return [*fixed, (text, label, place, None)]

    renamed: list[Row] = [(text, label + "!", place, None) for text, label, place, _ in rows()]
    variants = [rows(), rows(text="y"), rows(label="b"), rows(place="validation"), renamed]
    assert len({split(variant).fingerprint for variant in variants}) == len(variants)


def test_the_fingerprint_of_the_rows_is_that_of_texts_and_labels_alone() -> None:
    given: list[Row] = [("1", "a", "train", None), ("2", "b", "train", None), ("3", "a", "validation", None)]
    rows: list[Row] = [*given, ("4", "b", "test", None), ("5", "a", "test", None)]
    moved: list[Row] = [*given, ("4", "b", "test", None), ("5", "a", "validation", None)]
    plain = split(rows).rows_fingerprint
    assert plain == split(rows[::-1]).rows_fingerprint == split(moved).rows_fingerprint
    relabelled: list[Row] = [*given, ("4", "b", "test", None), ("5", "b", "test", None)]
    retold: list[Row] = [*given, ("4", "b", "test", None), ("6", "a", "test", None)]
    assert len({plain, split(relabelled).rows_fingerprint, split(retold).rows_fingerprint}) == 3


def test_slice_columns_stay_with_their_texts() -> None:
    rows = raw(plain(40))
    frame = rows.frame.assign(**{"slice number": [text.split()[1] for text in rows.frame["text"]]})
    splits = make_splits(replace(rows, frame=frame, slice_columns=("number",)), DataConfig(source="t.csv"))
    for _, part in splits.items():
        assert part.columns["number"] == tuple(text.split()[1] for text in part.texts)
    assert splits.fingerprint == split(plain(40)).fingerprint


# What holds for any rows

words = st.text(alphabet="aAéÉ ﬁ\u00a0ß", max_size=4)
filled = words.map(lambda text: "w" + text)  # never blank
rows_of_any_kind = st.lists(
    st.tuples(filled, st.sampled_from("ab"), st.sampled_from(SPLITS), st.sampled_from("123456789")),
    max_size=60,
)


@settings(max_examples=50, deadline=None)
@given(rows_of_any_kind, st.booleans())
def test_no_text_is_ever_in_two_splits(rows: list[Row], by_group: bool) -> None:
    anchor: list[Row] = [(f"anchor {i}", "ab"[i % 2], "train", str(i)) for i in range(20)]
    try:
        splits = split(anchor + rows, "group" if by_group else None)
    except DataError:
        reject()  # a few random rows may leave nothing of a split
    keys = [{text_key(text) for text in part.texts} for _, part in splits.items()]
    assert sum(map(len, keys)) == len(set.union(*keys))
    assert len(keys[0]) == len(splits.train)  # and in training just once
    given_test = [text for text, _, place, _ in rows if place == "test"]
    if given_test:
        assert list(splits.test.texts) == given_test
    counts = dict(splits.counts)
    counts.pop("groups_on_two_sides", None)
    assert counts.pop("rows_read") - sum(counts.values()) == sum(sizes(splits))


@settings(max_examples=25, deadline=None)
@given(rows_of_any_kind, st.integers(0, 2**32 - 1))
def test_no_group_is_ever_on_two_sides_and_a_seed_repeats_itself(rows: list[Row], seed: int) -> None:
    all_train: list[Row] = [(text, label, None, group) for text, label, _, group in rows]
    all_train += [(f"anchor {i}", "ab"[i % 2], None, str(i % 7)) for i in range(30)]
    splits = split(all_train, "group", split_seed=seed)
    groups = [set(part.groups or ()) for _, part in splits.items()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert splits.fingerprint == split(all_train, "group", split_seed=seed).fingerprint


@settings(deadline=None)
@given(st.text())
def test_a_key_ignores_case_and_white_space_around(text: str) -> None:
    assert text_key(f" \t{text}\n") == text_key(text)
    assert text_key(unicodedata.normalize("NFKC", text)) == text_key(text)


def test_rotten_tomatoes_is_split_by_film() -> None:
    splits = load_splits(DataConfig())
    assert splits.label_names == ("fresh", "rotten")
    assert sum(sizes(splits)) == 12_808 - splits.counts["duplicates"] - splits.counts["contradictions"]
    assert 0.09 < len(splits.test) / sum(sizes(splits)) < 0.11
    films = [set(part.groups or ()) for _, part in splits.items()]
    assert sum(map(len, films)) == len(set.union(*films))
    assert (sum(sizes(splits)), len(set.union(*films))) == (12_751, 507)  # as README shows it
