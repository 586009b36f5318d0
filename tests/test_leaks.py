"""Near-duplicates: planted ones are found, and none are where none were planted."""

import json

import numpy as np
import pytest
from made_answers import made_answers

from app.analysis.leaks import find_leaks
from app.analysis.near_duplicates import near_duplicates
from app.analysis.words import words
from app.errors import RequestError

CHANCE = np.random.default_rng(0)
WORDS = ["".join(CHANCE.choice(list("aeioulnrstkmp"), CHANCE.integers(2, 9))) for _ in range(2000)]
# As in language: the commonest word makes up a tenth of a text.
WEIGHTS = 1 / np.arange(1, len(WORDS) + 1)
WEIGHTS /= WEIGHTS.sum()


def sentences(count, low=8, high=30):
    return [" ".join(CHANCE.choice(WORDS, CHANCE.integers(low, high), p=WEIGHTS)) for _ in range(count)]


TRAIN, TEST = sentences(1500), sentences(200)
REVIEW = "A gorgeous, witty film that never forgets its heart, and the best thing this director has made in years."
EDITS = {
    "copy": REVIEW,
    "case": REVIEW.upper(),
    "punctuation": REVIEW.replace(",", "").rstrip("."),
    "prefix": f"Review: {REVIEW}",
    "word changed": REVIEW.replace("witty", "clever"),
    "words changed": REVIEW.replace("witty", "clever").replace("years", "decades"),
    "word left out": REVIEW.replace("gorgeous, ", ""),
    "word added": REVIEW.replace("the best", "easily the best"),
    "quotes and spaces": f"  “{REVIEW.replace(' ', '  ')}”",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_is_found(edit):
    (pair,) = near_duplicates([*TEST, EDITS[edit]], [*TRAIN, REVIEW])
    assert (pair.row, pair.other_row) == (len(TEST), len(TRAIN))
    assert 0.8 <= pair.similarity <= 1


def test_nothing_is_found_where_nothing_was_planted():
    assert near_duplicates(TEST, TRAIN) == []


@pytest.mark.parametrize(
    "other",
    [
        "A gorgeous, witty film.",
        "A film that never forgets its audience, though the best thing about it is over in minutes.",
        "The best thing this director has made in years is a short.",
    ],
)
def test_texts_that_share_a_phrase_are_no_twins(other):
    assert near_duplicates([other], [*TRAIN, REVIEW]) == []


def test_a_template_with_another_rare_word_is_no_twin():
    countries = ["Peru", "Chad", "Nepal", "Ghana", "Yemen", "Cuba", "Fiji", "Oman", "Malta", "Togo"]
    questions = [f"What is the capital of {country} ?" for country in countries]
    # Other questions make the words of the template common, as in a file of questions they are.
    others = [f"What is the {CHANCE.choice(WORDS)} of {CHANCE.choice(WORDS)} ?" for _ in range(300)]
    others += [f"Which capital is {CHANCE.choice(WORDS)} to ?" for _ in range(30)]
    assert near_duplicates(questions[:5], [*questions[5:], *others]) == []
    assert len(near_duplicates(questions[:5], [*questions[:5], *others])) == 5


def test_chinese_texts_have_twins_too():
    text = "酒店装修一般，但还算整洁。泳池在大堂的屋顶，因此很小，不过女儿倒是喜欢。"
    found = near_duplicates(
        [text.replace("女儿", "儿子"), "房间太小。其他的都一般。"], ["早餐还算丰富，服务也好。", text]
    )
    assert [(pair.row, pair.other_row) for pair in found] == [(0, 1)]


def test_either_side_may_be_the_larger_and_the_order_is_kept():
    few, many = [TRAIN[3], TRAIN[7].upper()], TRAIN[:50]
    assert [(pair.row, pair.other_row) for pair in near_duplicates(few, many)] == [(0, 3), (1, 7)]
    assert [(pair.row, pair.other_row) for pair in near_duplicates(many, few)] == [(3, 0), (7, 1)]


def test_texts_without_words_have_no_twin():
    assert near_duplicates(["", "?!", "word"], ["", "?!", "Word!"])[0].row == 2
    assert near_duplicates([], TRAIN) == []


def test_a_share_of_planted_copies_is_recovered():
    planted = [TRAIN[row].replace(" ", ", ", 1).capitalize() for row in range(30)]
    found = near_duplicates([*TEST[30:], *planted], TRAIN)
    assert {(pair.row, pair.other_row) for pair in found} == {(170 + row, row) for row in range(30)}


def test_leaks_are_counted_by_split_and_taken_out_of_the_score():
    test = [*TEST[:90], *(text.upper() for text in TRAIN[:10])]
    right = np.arange(100) >= 30  # all ten twins, and 60 of the others
    splits = {"train": TRAIN, "validation": sentences(50), "test": test}
    found = find_leaks(splits, [made_answers(right, texts=test)])
    assert [(one.split, one.other_split, one.with_twin, one.rows) for one in found.leaked] == [
        ("validation", "train", 0, 50),
        ("test", "train", 10, 100),
        ("test", "validation", 0, 100),
    ]
    assert found.leaked[1].share.value == 0.1
    assert [(twin.split, twin.row, twin.other_split, twin.other_row) for twin in found.twins] == [
        ("test", 90 + row, "train", row) for row in range(10)
    ]
    assert all(twin.text == twin.other_text.upper() for twin in found.twins)
    assert {twin.other_text for twin in found.twins} == set(TRAIN[:10])
    (score,) = found.scores
    assert (score.every.value, score.without_twins.value, score.twins.value) == (0.7, 60 / 90, 1)
    assert score.without_twins.low < 60 / 90 < score.without_twins.high


def test_answers_have_to_be_of_the_split():
    with pytest.raises(RequestError, match="lstm did not answer the texts of the split 'test'"):
        find_leaks({"train": TRAIN, "test": TEST}, [made_answers([1] * 200)])
    with pytest.raises(RequestError, match="the splits are train, validation"):
        find_leaks({"train": TRAIN, "validation": TEST}, [made_answers([1] * 200, texts=TEST)])
    with pytest.raises(RequestError, match="between splits; given: train"):
        find_leaks({"train": TRAIN})


def test_it_is_json():
    test = [TRAIN[0], *TEST[:5]]
    found = find_leaks({"train": TRAIN, "test": test}, [made_answers([1] * 6, texts=test)]).to_dict(limit=5)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["pairs"] == 1
    assert found["twins"][0]["text"] == found["twins"][0]["other_text"] == TRAIN[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't MISS it!", ["dont", "miss", "it"]),
        ("ﬁne １２", ["fine", "12"]),
        ("很好 ok", ["很", "好", "ok"]),
        ("...", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected
