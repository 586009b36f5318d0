"""Many texts in one request are run in slices of neighbours in length."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.signatures import Signature, TensorInfo
from app.serving.slices import SLICE_AREA, SLICE_ROWS, in_slices, is_classifier, slices
from app.serving.status import Code, ServingError


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=300))
def test_every_row_is_in_one_slice_and_no_slice_is_too_large(lengths):
    parts = list(slices(lengths))
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) <= SLICE_ROWS
        assert len(part) == 1 or len(part) * max(lengths[row] for row in part) ** 2 <= SLICE_AREA


def test_answers_come_back_in_the_order_of_the_texts():
    seen = []

    def run(inputs):
        seen.append(len(inputs["text"]))
        return {"length": np.array([len(text) for text in inputs["text"]])}

    texts = np.array([b"x" * (7 * row % 101) for row in range(150)], object)
    answer = in_slices(run)({"text": texts})
    assert answer["length"].tolist() == [len(text) for text in texts]
    assert seen == [128, 22]


def test_the_slices_of_a_request_share_one_time_limit():
    def run(inputs):
        time.sleep(0.03)
        return {"length": np.zeros(len(inputs["text"]))}

    texts = np.array([b"x"] * 1280, object)
    with pytest.raises(ServingError, match="Timed out waiting for notification") as late:
        in_slices(run, timeout_ms=50)({"text": texts})
    assert late.value.code == Code.DEADLINE_EXCEEDED
    assert len(in_slices(run)({"text": texts})["length"]) == 1280


def test_slicing_does_not_hide_the_limit_of_a_batch():
    with pytest.raises(ServingError, match="Task size 100 is larger than maximum input batch size 8"):
        in_slices(lambda inputs: {}, max_rows=8)({"text": np.array([b"x"] * 100, object)})


def test_a_request_that_fits_is_run_as_it_came():
    calls = []
    texts = {"text": np.array([b"long", b"a"], object)}
    in_slices(lambda inputs: calls.append(inputs) or {})(texts)
    assert calls == [texts]


def test_only_a_classifier_of_single_texts_is_sliced():
    text = {"text": TensorInfo("t:0", "DT_STRING", (-1,))}
    outputs = dict.fromkeys(("label", "confidence", "probabilities", "classes"), TensorInfo("o:0", "DT_FLOAT", (-1,)))
    assert is_classifier(Signature("serving_default", text, outputs, ""))
    assert not is_classifier(Signature("serving_default", text, {"scores": outputs["label"]}, ""))
    assert not is_classifier(Signature("s", {"text": TensorInfo("t:0", "DT_STRING", (-1, 2))}, outputs, ""))
    assert not is_classifier(Signature("s", {**text, "more": text["text"]}, outputs, ""))
