"""Texts to answers: from a SavedModel in this process, from a server by its URL, and from a stream of lines."""

import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from app.errors import RequestError
from app.prediction import Classifier, predict_stream, predict_texts, read_texts
from app.prediction_files import plan_file, predict_file
from app.remote import RemoteClassifier, predict_url
from app.serving.predictor import Predictor
from app.serving.server import serve_in_background

NAMES = ["none", "few", "many"]


class WordCounter(tf.Module):
    """Labels a text by its words: none, few (one or two), many; surer with more of them."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        words = tf.cast(tf.strings.split(text).row_lengths(), tf.float32)
        logits = tf.stack([-words, 1 - tf.abs(words - 1.5), words - 2.5], axis=1)
        probabilities = tf.nn.softmax(logits)
        names = tf.constant(NAMES)
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
            "classes": tf.broadcast_to(names, tf.shape(probabilities)),
        }


@pytest.fixture(scope="module")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("exports") / "words"
    model = WordCounter()
    tf.saved_model.save(model, str(base / "2"), signatures={"serving_default": model.classify})
    return base


@pytest.fixture(scope="module")
def predictor(base_path: Path) -> Predictor:
    return Predictor(base_path / "2")


@pytest.fixture(scope="module")
def url(base_path: Path) -> Iterator[str]:
    with serve_in_background("words", base_path) as url:
        yield url


@pytest.fixture(scope="module")
def remote(url: str) -> RemoteClassifier:
    return RemoteClassifier(url, "words")


@pytest.fixture(params=["predictor", "remote"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """The same model in this process and behind a URL: whatever holds for one holds for the other."""
    return request.getfixturevalue(request.param)


# Texts


def test_an_answer_holds_the_text_and_what_the_model_says_of_it(classifier: Classifier) -> None:
    none, many = predict_texts(classifier, ["", "a small gem of a movie"])
    assert (none["text"], none["label"]) == ("", "none")
    assert (many["text"], many["label"]) == ("a small gem of a movie", "many")
    assert list(many["probabilities"]) == NAMES
    assert many["confidence"] == many["probabilities"]["many"] == max(many["probabilities"].values())
    assert sum(many["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert json.loads(json.dumps(many)) == many


def test_probabilities_are_written_as_short_as_their_precision_allows(predictor: Predictor) -> None:
    (answer,) = predict_texts(predictor, ["one two"])
    probability = answer["probabilities"]["few"]
    assert np.float32(probability) == predictor.predict(["one two"]).probabilities[0, 1]
    assert len(repr(probability)) <= len("0.123456789")


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answers_stand_in_the_order_of_the_texts_whatever_the_batch_size(
    classifier: Classifier, batch_size: int
) -> None:
    texts = ["a b c d e", "", "a", "日本語 テスト", "", "a b c d", "🙂"]
    answers = predict_texts(classifier, texts, batch_size)
    assert [answer["text"] for answer in answers] == texts
    assert [answer["label"] for answer in answers] == ["many", "none", "few", "few", "none", "many", "few"]


def test_a_remote_classifier_answers_as_the_one_in_this_process(predictor: Predictor, remote: RemoteClassifier) -> None:
    texts = ["", "a\0b", "half a pair: \ud83d", 'quote " and back\\slash', "\u2028", "x " * 10_000, "{}", "Ünïcödé"]
    here, there = predictor.predict(texts), remote.predict(texts)
    assert there.labels == here.labels
    assert there.label_names == here.label_names == remote.label_names == tuple(NAMES)
    assert (there.probabilities.dtype, there.confidence.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-6)
    np.testing.assert_allclose(there.confidence, here.confidence, atol=1e-6)


@pytest.mark.parametrize(("limit", "sizes"), [(None, [64, 64, 64, 8]), (150, [150, 50])])
def test_a_server_gets_as_many_texts_a_request_as_were_wanted(
    remote: RemoteClassifier, monkeypatch: pytest.MonkeyPatch, limit: int | None, sizes: list[int]
) -> None:
    asked: list[int] = []
    assert remote.label_names
    real = remote._ask
    monkeypatch.setattr(remote, "_ask", lambda texts: asked.append(len(texts)) or real(texts))
    assert len(remote.predict(["a"] * 200, limit).labels) == 200
    assert asked == sizes


def test_no_texts_give_no_answers_but_the_label_names(classifier: Classifier) -> None:
    predictions = classifier.predict([])
    assert (predictions.labels, predictions.probabilities.shape) == ([], (0, 3))
    assert predictions.label_names == tuple(NAMES)
    assert predict_texts(classifier, []) == []


def test_a_batch_size_below_one_is_refused(classifier: Classifier) -> None:
    with pytest.raises(RequestError, match="batch_size is 0"):
        classifier.predict(["a"], 0)


# Where the remote classifier's model is

MODEL = "http://localhost:8501/v1/models/reviews"


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        ("http://localhost:8501", "reviews", f"{MODEL}:predict"),
        ("http://localhost:8501/", "reviews", f"{MODEL}:predict"),
        (MODEL, None, f"{MODEL}:predict"),
        (f"{MODEL}:predict", None, f"{MODEL}:predict"),
        (f"{MODEL}/", "reviews", f"{MODEL}:predict"),
        (f"{MODEL}/versions/3", None, f"{MODEL}/versions/3:predict"),
        (f"{MODEL}/labels/stable:predict", None, f"{MODEL}/labels/stable:predict"),
        ("https://[::1]:8501", "a b/c", "https://[::1]:8501/v1/models/a%20b%2Fc:predict"),
        ("http://gateway/text/v1/models/reviews", None, "http://gateway/text/v1/models/reviews:predict"),
        ("http://gateway/text/", "reviews", "http://gateway/text/v1/models/reviews:predict"),
    ],
)
def test_the_url_names_the_server_or_the_model(url: str, name: str | None, expected: str) -> None:
    assert predict_url(url, name) == expected


@pytest.mark.parametrize(
    ("url", "name", "message"),
    [
        ("localhost:8501", "reviews", "Did you mean http://localhost:8501?"),
        ("ftp://localhost", "reviews", "expected http://host:port"),
        ("http://", "reviews", "expected http://host:port"),
        ("http://[::1", "reviews", "is no URL of a server"),
        (f"{MODEL}?x=1", None, "expected http://host:port"),
        ("http://localhost:8501", None, "names no model: name it with --model-name"),
        (f"{MODEL}/metadata", None, "unknown path"),
        ("http://localhost:8501/v1/models/", "reviews", "unknown path"),
        (MODEL, "other", "names another model than --model-name other"),
    ],
)
def test_what_is_no_url_of_a_model_is_refused(url: str, name: str | None, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        RemoteClassifier(url, name)
    assert message in str(refused.value)


# What can go wrong on the way


def test_the_servers_own_error_is_quoted(url: str) -> None:
    with pytest.raises(RequestError) as refused:
        RemoteClassifier(url, "other").predict(["a"])
    assert str(refused.value) == (
        f"{url}/v1/models/other:predict answered 404: Servable not found for request: Latest(other)"
    )


def test_a_version_can_be_asked_for(url: str) -> None:
    assert RemoteClassifier(f"{url}/v1/models/words/versions/2").predict(["a"]).labels == ["few"]
    with pytest.raises(RequestError, match=r"404: .*Specific\(words, 1\)"):
        RemoteClassifier(f"{url}/v1/models/words/versions/1:predict").predict(["a"])


def test_a_server_that_is_not_there_is_named_with_the_command_that_starts_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        with pytest.raises(RequestError) as refused:
            RemoteClassifier(f"http://127.0.0.1:{port}", "words").predict(["a"])
    assert str(refused.value) == (
        f"no server answers at http://127.0.0.1:{port}/v1/models/words:predict (Connection refused)."
        " Start one with: python serve.py"
    )


@contextmanager
def server_that_says(*answers: tuple[int, str], delay: float = 0) -> Iterator[str]:
    """A real HTTP server that gives these answers in turn, the last one again and again."""
    left = list(answers)

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(delay)
            status, body = left.pop(0) if len(left) > 1 else left[0]
            with suppress(ConnectionError):  # the client may have given up by now
                self.send_response(status)
                self.send_header("content-length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/models/m"
        finally:
            server.shutdown()
            thread.join()


def outputs(**columns: object) -> str:
    answer = {"label": ["a"], "confidence": [1.0], "probabilities": [[1.0, 0.0]], "classes": [["a", "b"]]}
    return json.dumps({"outputs": {**answer, **columns}})


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (502, "<html>Bad Gateway</html>", "answered 502: <html>Bad Gateway</html>"),
        (503, "", "answered 503: Service Unavailable"),
        (400, '["no", "object"]', 'answered 400: ["no", "object"]'),
        (200, "<html>Welcome</html>", "answered no JSON, but '<html>Welcome</html>'"),
        (200, '{"outputs": [1.0]}', "expected the outputs label, confidence, probabilities, classes"),
        (200, '{"outputs": {"length": [1]}}', "it gives ['length']"),
        (200, "[]", "does not answer as a classifier does"),
        (200, outputs(label=["a", "b"]), "one row for each text"),
        (200, outputs(probabilities=[[1.0]]), "one row for each text"),
        (200, outputs(confidence=["sure"]), "does not answer as a classifier does"),
        (200, outputs(classes=[]), "does not answer as a classifier does"),
    ],
)
def test_an_answer_that_is_no_classifiers_says_what_came(status: int, body: str, message: str) -> None:
    with server_that_says((status, body)) as url, pytest.raises(RequestError) as refused:
        RemoteClassifier(url).predict(["text"])
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"{url}:predict ")


def test_a_server_that_takes_too_long_is_not_waited_for() -> None:
    slow = server_that_says((200, outputs()), delay=0.5)
    with slow as url, pytest.raises(RequestError, match=r":predict gave no answer within 0\.1 seconds"):
        RemoteClassifier(url, timeout=0.1).predict(["text"])


def test_labels_that_change_between_two_requests_are_not_mixed() -> None:
    other = outputs(classes=[["b", "a"]])
    with server_that_says((200, outputs()), (200, outputs()), (200, other)) as url:
        remote = RemoteClassifier(url)
        assert remote.predict(["text"]).label_names == ("a", "b")
        with pytest.raises(RequestError, match=r"changed its labels from \('a', 'b'\) to \('b', 'a'\)"):
            remote.predict(["text"])


# Lines


def texts_of(content: bytes) -> list[str]:
    return [text for texts in read_texts(io.BytesIO(content)) for text in texts]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\n\n \n", ["", "", " "]),
        (b"  kept \t\n", ["  kept \t"]),
        ("\ufeffmark\n".encode(), ["mark"]),
        ("line\u2028separator\x0b\x85\n".encode(), ["line\u2028separator\x0b\x85"]),
        (b"x" * 200_000 + b"\n" + "é".encode() * 100_000 + b"\nlast", ["x" * 200_000, "é" * 100_000, "last"]),
    ],
)
def test_each_line_is_one_text_and_loses_only_its_end(content: bytes, texts: list[str]) -> None:
    assert texts_of(content) == texts


def test_a_line_that_is_not_utf8_is_named() -> None:
    with pytest.raises(RequestError, match=r"standard input, line 3: not UTF-8 \(byte 0xe9\)"):
        texts_of(b"one\ntwo\ncaf\xe9\n")


def test_an_answer_comes_before_the_next_line_does(predictor: Predictor) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as typed:
        answers = predict_stream(predictor, stream)
        typed.write(b"one\n")
        assert next(answers)["text"] == "one"
        typed.write(b"two three\nfour five ")
        assert next(answers)["text"] == "two three"
        typed.write(b"six\n")
        assert next(answers)["label"] == "many"
        typed.close()
        assert list(answers) == []


# Files (what they hold and how they are written is in test_prediction_files.py)


def test_a_file_is_answered_by_either_classifier(classifier: Classifier, tmp_path: Path) -> None:
    source, target = tmp_path / "texts.csv", tmp_path / "answers.jsonl"
    source.write_text("id,text\n1,\n2,one two\n", encoding="utf-8")
    assert predict_file(classifier, plan_file(source, target), lambda done, total: None) == 2
    first, second = (json.loads(line) for line in target.read_text(encoding="utf-8").splitlines())
    assert (first["id"], first["text"], first["label"]) == ("1", "", "none")
    assert second["confidence"] == second["probability_few"]
    assert list(second) == ["id", "text", "label", "confidence", *(f"probability_{name}" for name in NAMES)]
