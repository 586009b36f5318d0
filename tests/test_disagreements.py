import csv
import io
import json

import numpy as np
import pytest
from made_answers import made_answers

from app.analysis.disagreements import disagreements
from app.errors import RequestError

LSTM = made_answers([1, 1, 1, 0, 0, 1], confidence=[0.9, 0.6, 0.7, 0.9, 0.8, 0.6])
TRANSFORMER = made_answers([1, 0, 0, 1, 0, 1], name="transformer", confidence=[0.9, 0.9, 0.8, 0.95, 0.8, 0.7])


def test_texts_on_which_both_were_sure_come_first():
    found = disagreements([LSTM, TRANSFORMER])
    assert [row.row for row in found.rows] == [3, 2, 1]
    assert [round(row.sureness, 6) for row in found.rows] == [0.9, 0.7, 0.6]
    first = found.rows[0]
    assert (first.text, first.label, first.right) == ("text number 3", "bad", ("transformer",))
    assert [(said.model, said.label, round(said.probability, 6)) for said in first.answers] == [
        ("lstm", "good", 0.9),
        ("transformer", "bad", 0.95),
    ]


def test_every_text_is_counted_by_who_is_right():
    found = disagreements([LSTM, TRANSFORMER])
    assert [(count.right, count.count) for count in found.counts] == [
        (("lstm", "transformer"), 2),
        (("lstm",), 2),
        (("transformer",), 1),
        ((), 1),
    ]
    assert found.total == 6


def test_two_different_wrong_labels_are_a_disagreement():
    names = ("a", "b", "c")
    first = made_answers([False], label_names=names)
    second = made_answers([False], name="linear", label_names=names)
    second.logits[0] = np.log([0.1, 0.2, 0.7])
    (only,) = disagreements([first, second]).rows
    assert [said.label for said in only.answers] == ["b", "c"]
    assert only.right == ()


def test_three_models_list_only_the_patterns_that_occur():
    third = made_answers([1, 1, 1, 1, 1, 1], name="linear")
    found = disagreements([LSTM, TRANSFORMER, third])
    assert [(count.right, count.count) for count in found.counts] == [
        (("lstm", "transformer", "linear"), 2),
        (("lstm", "linear"), 2),
        (("transformer", "linear"), 1),
        (("linear",), 1),
    ]
    assert [row.row for row in found.rows] == [3, 4, 2, 1]


HARMFUL = ['=HYPERLINK("http://evil")', "+1 for this, and more", "-2 stars", "@sum"]
HARMLESS = ['a "quote", and\na line', "-3.5", "x"]
TEXTS = HARMFUL + HARMLESS


def test_a_relabelling_file_survives_csv_and_runs_in_no_spreadsheet():
    count = len(TEXTS)
    names = ("-1", "1")
    first = made_answers([0] * count, texts=TEXTS, label_names=names, confidence=np.linspace(0.9, 0.6, count))
    second = made_answers([1] * count, name="linear", texts=TEXTS, label_names=names, confidence=0.95)
    text = disagreements([first, second]).relabelling().to_csv(index=False)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(rows[0]) == [
        *("row", "text", "label", "lstm", "lstm probability", "linear", "linear probability", "right", "new_label"),
    ]
    assert [int(row["row"]) for row in rows] == list(range(count))
    assert [row["text"] for row in rows] == [f"'{text}" for text in HARMFUL] + HARMLESS
    assert {row["new_label"] for row in rows} == {""}
    assert (rows[0]["label"], rows[0]["right"]) == ("-1", "linear")


def test_no_disagreement_still_has_columns():
    found = disagreements([LSTM, made_answers(LSTM.correct, name="copy")])
    assert found.rows == ()
    assert "new_label" in found.relabelling().columns


def test_it_is_json():
    found = disagreements([LSTM, TRANSFORMER]).to_dict(limit=1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["disagreements"] == 3
    assert len(found["rows"]) == 1


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "at least 2"),
        ([made_answers([1] * 6)], "lstm stands 2 times"),
        ([made_answers([1] * 5, name="b")], "lstm.* did not answer the same texts: 5 and 6"),
        ([made_answers([1] * 6, name="b", texts="abcdef")], "did not answer the same texts: row 0 differs"),
        ([made_answers([1] * 6, name="b", label_ids=[0, 1, 1, 1, 0, 1])], "different labels: row 2"),
        ([made_answers([1] * 6, name="b", label_names=("x", "y"))], "b has the labels x, y"),
    ],
)
def test_answers_that_cannot_be_compared_are_refused(others, message):
    with pytest.raises(RequestError, match=message):
        disagreements([LSTM, *others])
