"""Requests of several threads, gathered by TensorFlow's batch scheduler."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from app.errors import RequestError
from app.serving.servable import WARM_UP_RECORDS, Servable
from app.serving.status import Code, ServingError
from app.serving.text_protos import BatchingParameters

TEXT = tf.TensorSpec([None], tf.string, name="text")


class Toy(tf.Module):
    """A variable, a table, a string and a loop of any length: what a real export holds."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        keys = tf.lookup.KeyValueTensorInitializer(["good", "bad"], tf.constant([1, 2], tf.int64))
        self.table = tf.lookup.StaticHashTable(keys, 0)

    @tf.function(input_signature=[TEXT])
    def embed(self, text):
        return {"row": tf.gather(self.weights, self.table.lookup(text)), "text": tf.strings.upper(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="turns")])
    def spin(self, turns):
        _, total = tf.while_loop(lambda i, _: i < tf.reduce_max(turns), lambda i, t: (i + 1, t + 1), (0, 0))
        return {"turns": turns + 0 * total}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="text")])
    def single(self, text):
        return {"length": tf.strings.length(text)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    toy, path = Toy(), tmp_path_factory.mktemp("toy") / "1"
    signatures = {"serving_default": toy.embed, "spin": toy.spin, "single": toy.single}
    tf.saved_model.save(toy, str(path), signatures=signatures)
    return path


def strings(*texts):
    return np.array([text.encode() for text in texts], object)


def together(servable, requests):
    """Ask from one thread a request, all at once."""
    barrier = threading.Barrier(len(requests))

    def ask(texts):
        barrier.wait()
        return servable.run("serving_default", {"text": strings(*texts)})

    with ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(ask, requests))


def test_every_caller_gets_its_own_rows(folder):
    servable = Servable(folder, batching=BatchingParameters(max_batch_size=8, batch_timeout_micros=20_000))
    rows = {"good": [3, 4], "bad": [5, 6], "else": [1, 2]}
    requests = [["good"], ["bad", "else"], ["else", "good", "bad"], ["bad"]] * 6
    for texts, answer in zip(requests, together(servable, requests), strict=True):
        np.testing.assert_array_equal(answer["row"], [rows[text] for text in texts])
        assert answer["text"].tolist() == [text.upper().encode() for text in texts]


def test_requests_that_come_together_share_a_batch(folder):
    sizes = []
    parameters = BatchingParameters(max_batch_size=8, batch_timeout_micros=2_000_000, num_batch_threads=1)
    servable = Servable(folder, batching=parameters, on_batch=lambda rows, batch: sizes.append((rows, batch)))
    together(servable, [["good"]] * 8)  # the eighth fills the batch: nobody waits for the two seconds
    assert sizes == [(1, 8)] * 8


def test_a_batch_is_padded_to_an_allowed_size(folder):
    sizes = []
    parameters = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(4, 8))
    servable = Servable(folder, batching=parameters, on_batch=lambda rows, batch: sizes.append((rows, batch)))
    answer = servable.run("serving_default", {"text": strings("good", "bad", "else")})
    assert answer["text"].tolist() == [b"GOOD", b"BAD", b"ELSE"]
    assert sizes == [(3, 4)]


def test_more_rows_than_a_batch_takes_are_refused_as_tensorflow_serving_words_it(folder):
    servable = Servable(folder, batching=BatchingParameters(max_batch_size=8))
    with pytest.raises(ServingError) as refused:
        servable.run("serving_default", {"text": strings(*"abcdefghi")})
    assert refused.value.code == Code.INVALID_ARGUMENT
    assert "Task size 9 is larger than maximum input batch size 8" in refused.value.message


def test_a_full_queue_refuses_and_says_that_it_is_full(folder):
    parameters = BatchingParameters(max_batch_size=1, num_batch_threads=1, max_enqueued_batches=1)
    servable = Servable(folder, batching=parameters, timeout_ms=60_000)
    codes = []

    def ask(_):
        try:
            servable.run("spin", {"turns": np.array([20_000], np.int32)})
        except ServingError as error:
            codes.append((error.code, error.http_status, error.message))

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(ask, range(12)))
    assert codes
    for code, http_status, message in codes:
        assert (code, http_status) == (Code.UNAVAILABLE, 503)
        assert "queue to which this task was submitted is full" in message


def test_a_signature_without_rows_runs_unbatched(folder):
    servable = Servable(folder, batching=BatchingParameters(max_batch_size=8))
    assert servable.run("single", {"text": np.array(b"abc", object)})["length"] == 3


@pytest.mark.parametrize("batching", [None, BatchingParameters(max_batch_size=8)])
def test_a_run_that_takes_too_long_is_cancelled(folder, batching):
    servable = Servable(folder, batching=batching, timeout_ms=1000)  # longer than a busy machine takes for three turns
    with pytest.raises(ServingError) as late:
        servable.run("spin", {"turns": np.array([100_000_000], np.int32)})
    assert late.value.code == Code.DEADLINE_EXCEEDED
    assert late.value.message == "Timed out waiting for notification"
    assert servable.run("spin", {"turns": np.array([3], np.int32)})["turns"] == [3]


def test_a_short_time_limit_does_not_keep_a_model_from_warming_up(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "1")
    (tmp_path / "1" / "assets.extra").mkdir()
    request = predict_pb2.PredictRequest(inputs={"turns": tf.make_tensor_proto([100_000], tf.int32, [1])})
    request.model_spec.signature_name = "spin"
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    with tf.io.TFRecordWriter(str(tmp_path / "1" / WARM_UP_RECORDS)) as writer:
        writer.write(log.SerializeToString())
    servable = Servable(tmp_path / "1", timeout_ms=1)
    assert servable.warm_up() == 1
    with pytest.raises(ServingError, match="Timed out"):
        servable.run("spin", {"turns": np.array([100_000], np.int32)})


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        (prediction_log_pb2.PredictionLog(), "log of no type"),
        (prediction_log_pb2.PredictionLog(classify_log=prediction_log_pb2.ClassifyLog()), "it holds a classify_log"),
    ],
)
def test_a_warm_up_record_that_cannot_be_replayed_is_named(folder, tmp_path, log, complaint):
    shutil.copytree(folder, tmp_path / "1")
    (tmp_path / "1" / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "1" / WARM_UP_RECORDS)) as writer:
        writer.write(log.SerializeToString())
    with pytest.raises(RequestError, match=f"record 1: warm-up failed: .*{complaint}"):
        Servable(tmp_path / "1").warm_up()


def test_a_garbage_warm_up_file_is_skipped_as_tensorflow_serving_does(folder, tmp_path, caplog):
    shutil.copytree(folder, tmp_path / "1")
    (tmp_path / "1" / "assets.extra").mkdir()
    (tmp_path / "1" / WARM_UP_RECORDS).write_bytes(b"no TFRecord at all, but longer than a record's head")
    assert Servable(tmp_path / "1").warm_up() == 0
    assert "is no whole TFRecord file" in caplog.text


def test_a_closed_servable_frees_its_session(folder):
    servable = Servable(folder)
    servable.close()
    with pytest.raises(KeyError):
        servable.run("serving_default", {"text": strings("good")})
