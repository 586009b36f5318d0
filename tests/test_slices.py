"""Many texts in one request are run in slices of neighbours in length, by what the export says of its reading."""

import dataclasses
import json
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RequestError
from app.serving.reading import UNTOLD, Reading, read_reading
from app.serving.servable import Servable
from app.serving.signatures import Signature, TensorInfo
from app.serving.slices import SLICE_ROWS, in_slices, is_classifier, slices
from app.serving.status import Code, ServingError

READINGS = {
    "untold": UNTOLD,
    "attention": Reading(longest_row=256, window=256, linear_memory=False),
    "attention in windows": Reading(longest_row=4096, window=256, linear_memory=False),
    "recurrence": Reading(longest_row=256, window=256, linear_memory=True),
    "recurrence, long": Reading(longest_row=2048, window=2048, linear_memory=True),
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
@given(pieces=st.lists(st.integers(0, 5_000), min_size=1, max_size=300))
def test_every_row_is_in_one_slice_and_no_slice_is_too_large(pieces, reading):
    parts = list(slices(pieces, reading))
    assert sorted(row for part in parts for row in part) == list(range(len(pieces)))
    for part in parts:
        assert len(part) <= SLICE_ROWS
        assert len(part) == 1 or len(part) * reading.share(max(pieces[row] for row in part)) <= 1


@pytest.mark.parametrize(
    ("name", "pieces", "rows"),
    [
        ("untold", 256, 64),
        ("untold", 1024, 4),
        ("attention", 128, 128),
        ("attention", 256, 64),
        ("attention", 10_000, 64),  # what is cut takes no memory
        ("attention in windows", 1024, 16),
        ("attention in windows", 10_000, 4),
        ("recurrence", 10_000, 128),
        ("recurrence, long", 256, 128),
        ("recurrence, long", 1024, 32),
    ],
)
def test_so_many_texts_are_run_at_once(name, pieces, rows):
    assert len(next(slices([pieces] * 200, READINGS[name]))) == rows


@pytest.mark.parametrize(("told", "rows"), [(True, [128, 22]), (False, [64, 64, 22]), (None, [10] * 15)])
def test_a_server_runs_as_many_rows_at_once_as_the_export_says(told, rows, tmp_path):
    names = tf.constant(["a", "b"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(text):
        count = tf.fill(tf.shape(text), tf.cast(tf.shape(text)[0], tf.float32))
        nothing = tf.zeros([tf.shape(text)[0], 2])
        classes = tf.broadcast_to(names, [tf.shape(text)[0], 2])
        return {"label": classes[:, 0], "confidence": count, "probabilities": nothing, "classes": classes}

    tf.saved_model.save(tf.Module(), str(tmp_path / "1"), signatures={"serving_default": classify})
    if told is not None:
        (tmp_path / "1" / "assets.extra").mkdir()
        reading = Reading(longest_row=256, window=256, linear_memory=told)
        content = json.dumps(dataclasses.asdict(reading))
        (tmp_path / "1" / "assets.extra" / "reading.json").write_text(content, encoding="utf-8")
    texts = np.array([b"!" * 600] * 150, object)  # 637 pieces, of which 256 are read
    answer = Servable(tmp_path / "1").run("serving_default", {"text": texts})
    assert answer["confidence"].tolist() == [size for size in rows for _ in range(size)]


def test_an_export_says_how_it_reads(tmp_path):
    assert read_reading(tmp_path) == UNTOLD
    (tmp_path / "assets.extra").mkdir()
    file = tmp_path / "assets.extra" / "reading.json"
    file.write_text(json.dumps(dataclasses.asdict(READINGS["recurrence"])), encoding="utf-8")
    assert read_reading(tmp_path) == READINGS["recurrence"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("[]", "must be a mapping"),
        ("{}", "longest_row"),
        ('{"longest_row": 256, "window": 0, "linear_memory": true}', "window is 0: expected a whole number from 1"),
        ('{"longest_row": 2.5, "window": 2, "linear_memory": true}', "longest_row is 2.5"),
        ('{"longest_row": 256, "window": 256, "linear_memory": 1}', "linear_memory is 1: expected true or false"),
    ],
)
def test_what_cannot_be_understood_is_said(content, message, tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "reading.json").write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match=f"reading.json does not tell how the graph reads: .*{message}"):
        read_reading(tmp_path)


def test_answers_come_back_in_the_order_of_the_texts():
    seen = []

    def run(inputs):
        seen.append(len(inputs["text"]))
        return {"length": np.array([len(text) for text in inputs["text"]])}

    texts = np.array([b"x" * (7 * row % 101) for row in range(150)], object)
    answer = in_slices(run, UNTOLD)({"text": texts})
    assert answer["length"].tolist() == [len(text) for text in texts]
    assert seen == [128, 22]


def test_the_slices_of_a_request_share_one_time_limit():
    def run(inputs):
        time.sleep(0.03)
        return {"length": np.zeros(len(inputs["text"]))}

    texts = np.array([b"x"] * 1280, object)
    with pytest.raises(ServingError, match="Timed out waiting for notification") as late:
        in_slices(run, UNTOLD, timeout_ms=50)({"text": texts})
    assert late.value.code == Code.DEADLINE_EXCEEDED
    assert len(in_slices(run, UNTOLD)({"text": texts})["length"]) == 1280


def test_slicing_does_not_hide_the_limit_of_a_batch():
    with pytest.raises(ServingError, match="Task size 100 is larger than maximum input batch size 8"):
        in_slices(lambda inputs: {}, UNTOLD, max_rows=8)({"text": np.array([b"x"] * 100, object)})


def test_a_request_that_fits_is_run_as_it_came():
    calls = []
    texts = {"text": np.array([b"long", b"a"], object)}
    in_slices(lambda inputs: calls.append(inputs) or {}, UNTOLD)(texts)
    assert calls == [texts]


def test_only_a_classifier_of_single_texts_is_sliced():
    text = {"text": TensorInfo("t:0", "DT_STRING", (-1,))}
    outputs = dict.fromkeys(("label", "confidence", "probabilities", "classes"), TensorInfo("o:0", "DT_FLOAT", (-1,)))
    assert is_classifier(Signature("serving_default", text, outputs, ""))
    assert not is_classifier(Signature("serving_default", text, {"scores": outputs["label"]}, ""))
    assert not is_classifier(Signature("s", {"text": TensorInfo("t:0", "DT_STRING", (-1, 2))}, outputs, ""))
    assert not is_classifier(Signature("s", {**text, "more": text["text"]}, outputs, ""))
