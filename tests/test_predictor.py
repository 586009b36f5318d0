"""Texts to labels with a SavedModel, in the caller's order and without a server."""

import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from app.errors import RequestError
from app.serving.predictor import Predictor
from app.serving.reading import roughly_pieces
from app.serving.status import Code, ServingError

NAMES = ["negative", "neutral", "positive"]


class LengthClassifier(tf.Module):
    """A text's length picks the label: 0 negative, 1 neutral, more positive."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(3.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(self, text):
        label_ids = tf.minimum(tf.strings.length(text, "UTF8_CHAR"), 2)
        probabilities = tf.nn.softmax(self.scale * tf.one_hot(label_ids, 3))
        names = tf.constant(NAMES)
        return {
            "label": tf.gather(names, label_ids),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
            "classes": tf.broadcast_to(names, tf.shape(probabilities)),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def count(self, text):
        return {"length": tf.strings.length(text)}


@pytest.fixture(scope="module")
def version_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "toy" / "12"
    model = LengthClassifier()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.classify, "count": model.count})
    return folder


@pytest.fixture(scope="module")
def predictor(version_folder: Path) -> Predictor:
    return Predictor(version_folder)


def test_a_predictor_knows_its_version_labels_and_signatures(predictor):
    assert predictor.version == 12
    assert predictor.label_names == tuple(NAMES)
    assert set(predictor.signatures) >= {"serving_default", "count"}
    assert predictor.signatures["count"].inputs["text"].dtype == "DT_STRING"
    assert predictor.signatures["serving_default"].outputs["probabilities"].shape == (-1, 3)


def test_predictions_have_their_shapes_and_types(predictor):
    answer = predictor.predict(["", "x", "xyz"])
    assert answer.labels == NAMES
    assert answer.label_names == tuple(NAMES)
    assert (answer.probabilities.dtype, answer.probabilities.shape) == (np.float32, (3, 3))
    assert (answer.confidence.dtype, answer.confidence.shape) == (np.float32, (3,))
    np.testing.assert_array_equal(answer.confidence, answer.probabilities.max(axis=1))
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_answers_stand_in_the_order_of_the_texts_whatever_the_batch_size(predictor, batch_size):
    texts = ["long text", "", "é", "a", "", "another long text", "b"]
    answer = predictor.predict(texts, batch_size)
    assert answer.labels == [NAMES[min(len(text), 2)] for text in texts]


def test_no_texts_give_empty_predictions(predictor):
    answer = predictor.predict([])
    assert (answer.labels, answer.probabilities.shape, answer.confidence.shape) == ([], (0, 3), (0,))


@pytest.mark.parametrize("text", ["a\0b", "\ud800 half a pair", "🙂" * 1000, "日本語"])
def test_unusual_texts_get_an_answer(predictor, text):
    assert predictor.predict([text]).labels == ["positive"]


def test_a_batch_size_below_one_is_refused(predictor):
    with pytest.raises(RequestError, match="batch_size is 0"):
        predictor.predict(["a"], 0)


def test_a_folder_without_a_saved_model_is_named(tmp_path):
    with pytest.raises(RequestError, match=rf"{tmp_path} is no SavedModel: expected .* saved_model.pb"):
        Predictor(tmp_path)


def test_a_damaged_saved_model_is_named(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(RequestError, match=r"saved_model.pb is damaged"):
        Predictor(tmp_path)


def test_a_saved_model_without_its_variables_is_refused_with_tensorflows_reason(version_folder, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes((version_folder / "saved_model.pb").read_bytes())
    with pytest.raises(RequestError, match="cannot load"):
        Predictor(tmp_path)


def test_a_saved_model_that_is_no_classifier_says_what_was_expected(tmp_path):
    model = LengthClassifier()
    tf.saved_model.save(model, str(tmp_path / "1"), signatures={"serving_default": model.count})
    tf.saved_model.save(model, str(tmp_path / "2"), signatures={"count": model.count})
    with pytest.raises(RequestError, match=r"takes \['text'\] and gives \['length'\]; expected"):
        Predictor(tmp_path / "1")
    with pytest.raises(RequestError, match="has no signature 'serving_default'"):
        Predictor(tmp_path / "2")


def test_a_folder_whose_name_is_no_integer_has_version_0(version_folder, tmp_path):
    (tmp_path / "latest").symlink_to(version_folder)
    assert Predictor(tmp_path / "latest").version == 0


def write_warm_up(folder: Path, signature_name: str) -> None:
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest(inputs={"text": tf.make_tensor_proto(["a", "b"])})
    request.model_spec.signature_name = signature_name
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(log.SerializeToString())


@pytest.mark.parametrize("signature_name", ["", "serving_default", "count"])
def test_warm_up_records_are_replayed(tmp_path, signature_name):
    model = LengthClassifier()
    signatures = {"serving_default": model.classify, "count": model.count}
    tf.saved_model.save(model, str(tmp_path / "1"), signatures=signatures)
    write_warm_up(tmp_path / "1", signature_name)
    assert Predictor(tmp_path / "1").servable.warm_up() == 1


def test_a_warm_up_record_that_fails_is_named(tmp_path):
    model = LengthClassifier()
    tf.saved_model.save(model, str(tmp_path / "1"), signatures={"serving_default": model.classify})
    write_warm_up(tmp_path / "1", "nope")
    with pytest.raises(RequestError, match=r"tf_serving_warmup_requests, record 1: warm-up failed: .*nope"):
        Predictor(tmp_path / "1").servable.warm_up()


def test_several_batches_are_worked_on_at_the_same_time_and_a_failure_in_one_is_told(predictor, monkeypatch):
    both_there = threading.Barrier(2, timeout=30)
    assert predictor.label_names  # asked once, in a run of its own
    run = predictor.servable.run

    def meeting(name, inputs):
        both_there.wait()  # BrokenBarrierError where the other batch waits for this one
        if b"bad" in inputs["text"]:
            raise ServingError(Code.INTERNAL, "no answer to this")
        return run(name, inputs)

    monkeypatch.setattr(predictor.servable, "run", meeting)
    assert predictor.predict(["a", "bb"], 1).labels == ["neutral", "positive"]
    with pytest.raises(ServingError, match="no answer to this"):
        predictor.predict(["a", "bad"], 1)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", 0),
        ("one", 0),
        ("two words", 1),
        ("it's late, isn't it?", 8),
        ("很好看。", 4),
        ("naïve", 0),
        ("a\x00b", 1),
        ("ACGT" * 40, 10),
    ],
)
def test_pieces_are_guessed_from_what_stands_between_words(text, pieces):
    assert roughly_pieces(text.encode()) == pieces


def test_a_batch_holds_texts_of_as_many_pieces_whatever_their_letters(predictor, monkeypatch):
    asked, run = [], predictor.servable.run
    assert predictor.label_names

    def listening(name, inputs):
        asked.append(sorted(inputs["text"].tolist()))
        return run(name, inputs)

    monkeypatch.setattr(predictor.servable, "run", listening)
    predictor.predict(["incomprehensibilities", "a b c d", "ab", "a b c d e f g h i j k"], 2)  # 21, 7, 2, 21 letters
    assert sorted(asked) == [[b"a b c d", b"a b c d e f g h i j k"], [b"ab", b"incomprehensibilities"]]


@pytest.mark.parametrize(("limit", "sizes"), [(None, [72, 128]), (1000, [72, 128]), (90, [20, 90, 90])])
def test_as_many_texts_as_are_fast_are_asked_at_a_time_and_no_more_than_wanted(predictor, monkeypatch, limit, sizes):
    asked, run = [], predictor.servable.run
    assert predictor.label_names
    monkeypatch.setattr(
        predictor.servable, "run", lambda name, inputs: asked.append(len(inputs["text"])) or run(name, inputs)
    )
    assert len(predictor.predict(["a"] * 200, limit).labels) == 200
    assert sorted(asked) == sizes
