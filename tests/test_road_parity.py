"""One set of golden answers over every road: the SavedModel, the C API, REST, gRPC and TensorFlow Serving."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from app.cli import main
from app.errors import RequestError
from app.export import write_warmup
from app.serving.golden import Golden, encoded, read_golden
from app.serving.http.access import Access
from app.serving.inspection import answering_nodes, examine
from app.serving.model_config import ModelSettings, VersionPolicy
from app.serving.options import ServerOptions
from app.serving.parity import TOLERANCE, compare, problems, table
from app.serving.roads import Target, grpc_address, target
from app.serving.saved_model import read_meta_graph
from app.serving.servable import Servable
from app.serving.server import serve_options_in_background
from app.serving.server_parity import server_rows
from app.serving.signatures import DEFAULT_SIGNATURE
from app.serving.verification import VerificationError, verify

TEXTS = ["good good", "bad", "", "Фильм good 😀", "good bad bad", "so so"]
LABELS = ["negative", "positive"]


class ToyClassifier(tf.Module):
    """Counts good and bad: a classifier with an export's signatures, made in no time."""

    def __init__(self, weight: float) -> None:
        self.weight = tf.Variable([[-weight], [weight]])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(self, text):
        weight = self.weight.read_value()
        good = self.count(text, "good") - self.count(text, "bad") + 0.25
        probabilities = tf.nn.softmax(good[:, None] * tf.transpose(weight))
        return {
            "label": tf.gather(tf.constant(LABELS), tf.argmax(probabilities, axis=1)),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
            "classes": tf.broadcast_to(LABELS, [tf.shape(text)[0], 2]),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def statistics(self, text):
        length = tf.strings.length(text)
        share = self.weight.read_value()[1, 0] / tf.cast(1 + length, tf.float32)
        return {"length": length, "share": share, "long": length > 8, "again_bytes": text}

    @tf.function(
        input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x"), tf.TensorSpec([], tf.int64, name="n")]
    )
    def numbers(self, x, n):
        return {"y": tf.reduce_sum(x, axis=1) + tf.cast(n, tf.float32) + self.weight.read_value()[1, 0]}

    def count(self, text, word):
        return tf.cast(tf.strings.length(tf.strings.regex_replace(text, word, word + "#")), tf.float32) - tf.cast(
            tf.strings.length(text), tf.float32
        )


def write_export(folder: Path, weight: float, golden_weight: float | None = None) -> Path:
    """A version folder as `train` writes it; the golden answers may be those of another weight."""
    module = ToyClassifier(weight)
    signatures = {"serving_default": module.classify, "statistics": module.statistics, "numbers": module.numbers}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    keras = ToyClassifier(weight if golden_weight is None else golden_weight)
    evaluated = keras.classify(tf.constant(TEXTS))
    golden = {
        "label_names": LABELS,
        "texts": TEXTS,
        "labels": [label.decode() for label in evaluated["label"].numpy()],
        "probabilities": evaluated["probabilities"].numpy().tolist(),
    }
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    write_warmup(folder / "assets.extra" / "tf_serving_warmup_requests", folder.parent.name, TEXTS)
    return folder


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    return write_export(tmp_path_factory.mktemp("exports") / "reviews" / "3", 0.5)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """The same name and version, and another weight."""
    return write_export(tmp_path_factory.mktemp("other") / "reviews" / "3", 0.6)


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[tuple[str, str]]:
    """The REST URL and the gRPC address of a server of all versions beside a version folder."""
    models = (ModelSettings(folder.parent.name, folder.parent, VersionPolicy("all")),)
    with serve_options_in_background(ServerOptions(models, rest_api_port=0, grpc_port=0, **options)) as addresses:
        yield addresses.url, addresses.grpc


@pytest.fixture(scope="module")
def served(export: Path) -> Iterator[tuple[str, str]]:
    with serving(export) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def served_other(other: Path) -> Iterator[tuple[str, str]]:
    with serving(other) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def reference(export: Path) -> dict[str, dict[str, np.ndarray]]:
    """What the SavedModel answers."""
    servable = Servable(export)
    inputs = {"x": np.zeros((1, 2), np.float32), "n": np.array(0)}
    answers = {name: servable.run(name, {"text": encoded(TEXTS)}) for name in ("serving_default", "statistics")}
    answers["numbers"] = servable.run("numbers", inputs)
    servable.close()
    return answers


# The whole check


def test_an_export_whose_answers_are_altered_fails_on_every_road(tmp_path):
    export = write_export(tmp_path / "reviews" / "1", 0.5, golden_weight=0.52)
    with pytest.raises(VerificationError, match=r"SavedModel: a probability differs by .* text \d") as failure:
        verify(export)
    assert "C API: a probability differs by" in str(failure.value)
    assert [row.road for row in failure.value.verification.roads if row.problems] == ["SavedModel", "C API"]


def test_the_trained_export_passes_over_every_road(experiment):
    folder = experiment.outcome.export
    with serving(folder) as (url, grpc):
        found = verify(folder, url, grpc)
    roads = {row.road for row in found.roads if row.signature == DEFAULT_SIGNATURE and not row.problems}
    assert {"Keras", "SavedModel", "C API", "REST", "gRPC"} <= roads
    assert found.problems == []
    for road in ("SavedModel", "C API", "REST", "gRPC"):
        assert sorted(row.signature for row in found.roads if row.road == road) == found.signatures
    assert all(row.largest_difference is None or row.largest_difference <= TOLERANCE for row in found.roads)


def test_the_command_prints_the_table_and_fails_with_1_on_a_server_that_differs(export, served_other, capsys):
    url, grpc = served_other
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(export), "--url", url, "--grpc", grpc, "--json"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    rows = json.loads(printed.out)["roads"]
    assert {row["road"] for row in rows if row["problems"]} == {"REST", "gRPC"}
    through_c = {row["signature"]: row for row in rows if row["road"] == "C API"}
    assert set(through_c) == {"serving_default", "statistics", "numbers"}
    assert all(row["labels_equal"] == row["texts"] for row in through_c.values())
    assert re.search(r"^REST +serving_default +6 +6 ", printed.err, re.MULTILINE)
    assert "REST: a probability differs by" in printed.err
    assert "gRPC, signature 'statistics': a value of 'share' differs by" in printed.err


def test_probabilities_that_are_no_numbers_are_reported_in_plain_json(tmp_path):
    found = examine(write_export(tmp_path / "reviews" / "1", float("nan"), golden_weight=0.5))
    assert any("SavedModel: a probability differs by inf" in problem for problem in found.problems)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["largest_difference"] is None


def test_a_function_s_node_is_not_taken_for_one_of_the_graph_with_its_name(export):
    graph = read_meta_graph(export)
    tied = {node.name for node in graph.graph_def.node if node.device}
    inside = {node.name for function in graph.graph_def.library.function for node in function.node_def}
    assert tied & inside, "TensorFlow names its nodes another way now: nothing is shown here any more"
    assert {node.device for node in answering_nodes(export)} == {""}


# Servers


def test_a_server_with_other_answers_is_named_with_the_text(export, served_other, reference):
    url, grpc = served_other
    rows = server_rows(export, target(url, export), grpc, read_golden(export), reference)
    found = problems(rows)
    assert any(problem.startswith("REST: a probability differs by") for problem in found)
    assert any(problem.startswith("gRPC: a probability differs by") for problem in found)
    assert all("most at text" in problem for problem in found)
    # What does not depend on the weight is equal all the same.
    assert all(row.labels_equal == row.texts for row in rows)


def test_a_server_that_is_not_there_is_a_row_of_its_own(export, reference, unused_port):
    address = f"127.0.0.1:{unused_port}"
    rows = server_rows(export, target(f"http://{address}", export), address, read_golden(export), reference)
    found = problems(rows)
    assert any(problem.startswith("REST: http://127.0.0.1:") and "refused" in problem for problem in found)
    assert any(problem.startswith("gRPC: ") and "UNAVAILABLE" in problem for problem in found)
    assert {row.cells()[3] for row in rows} == {"no answer"}


def test_a_version_that_is_not_served_is_named(export, served, reference):
    asked = replace(target(served[0], export), version=9)
    found = problems(server_rows(export, asked, served[1], read_golden(export), reference))
    assert any("REST" in problem and "404" in problem and "Specific(reviews, 9)" in problem for problem in found)
    assert any("gRPC" in problem and "NOT_FOUND" in problem for problem in found)


def test_the_token_of_the_environment_is_sent(export, reference, monkeypatch):
    with serving(export, access=Access(["a-token-of-the-check"])) as (url, grpc):
        for token, silent in (("another-token-than-that", 6), ("a-token-of-the-check", 0)):
            monkeypatch.setenv("VALENCE_TOKEN", token)
            rows = server_rows(export, target(url, export), grpc, read_golden(export), reference)
            assert len(problems(rows)) == silent


@pytest.fixture
def unused_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound and not listening: nothing answers there, and nobody else takes it
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8501", Target("http://localhost:8501", "reviews", 3)),
        ("https://front/a%20b/", Target("https://front/a%20b", "reviews", 3)),
        ("http://h:1/v1/models/other", Target("http://h:1", "other", 3)),
        ("http://h:1/v1/models/a%20b/versions/7:predict", Target("http://h:1", "a b", 7)),
        ("http://h:1/p/v1/models/other/labels/stable", Target("http://h:1/p", "other", None, "stable")),
    ],
)
def test_the_url_names_the_server_the_model_and_the_version(url, expected, tmp_path):
    assert target(url, tmp_path / "reviews" / "3") == expected


def test_the_predict_url_of_a_target_is_escaped():
    asked = Target("http://h:1/p", "a b", None, "x/y")
    assert asked.predict_url == "http://h:1/p/v1/models/a%20b/labels/x%2Fy:predict"


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://h", "http://", "http://h/v1/models/a?x=1", "http://[::1"])
def test_what_is_no_url_is_refused(url, tmp_path):
    with pytest.raises(RequestError, match="is no URL of a server"):
        target(url, tmp_path / "reviews" / "3")


def test_the_grpc_address_may_ask_for_tls():
    assert grpc_address("h:1") == ("h:1", False)
    assert grpc_address("https://h:1") == ("h:1", True)
    with pytest.raises(RequestError, match="is no gRPC address"):
        grpc_address("h")


def test_grpc_without_the_rest_address_is_a_wrong_request(export):
    with pytest.raises(RequestError, match="--url"):
        verify(export, grpc="localhost:8500")


# TensorFlow Serving where it is on the PATH: a stand-in of the same name and flags

STAND_IN = """#!{python}
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
flags = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
assert flags["port"] == "0" and "rest_api_port" not in flags, flags
from app.serving.grpc_api import GrpcServer
from app.serving.inspection import answering_nodes, examine
from app.serving.model_config import ModelSettings
from app.serving.repository import ModelRepository
from app.serving.servable import Servable
from app.serving.service import PredictionService
from app.serving.metrics import ServingMetrics
repository = ModelRepository([ModelSettings(flags["model_name"], Path(flags["model_base_path"]))], Servable)
repository.start()
server = GrpcServer(PredictionService(repository, ServingMetrics()), "unix:" + flags["grpc_socket_path"])
server.start()
time.sleep(600)
"""


def on_the_path(folder: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "tensorflow_model_server"
    program.write_text(content, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_tensorflow_serving_on_the_path_is_a_road_too(export, other, served, reference, tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    on_the_path(tmp_path, STAND_IN.format(python=sys.executable, path=[str(root)]), monkeypatch)
    rows = server_rows(export, target(served[0], export), None, read_golden(export), reference)
    judged = {(row.road, row.signature): row for row in rows}
    assert problems(rows) == []
    assert {name for road, name in judged if road == "TensorFlow Serving"} == set(reference)


def test_a_tensorflow_serving_that_does_not_start_is_told_with_its_last_words(
    export, served, reference, tmp_path, monkeypatch
):
    on_the_path(tmp_path, "#!/bin/sh\necho starting\necho 'illegal instruction' >&2\nexit 3\n", monkeypatch)
    rows = server_rows(export, target(served[0], export), None, read_golden(export), reference)
    assert problems(rows) == [
        "TensorFlow Serving: tensorflow_model_server ended with exit code 3; it said: illegal instruction"
    ]


# How answers are compared


@pytest.fixture
def golden(export) -> Golden:
    return read_golden(export)


def changed(reference, output: str, place: object, value: object, signature: str = DEFAULT_SIGNATURE):
    answers = {name: {key: array.copy() for key, array in outputs.items()} for name, outputs in reference.items()}
    answers[signature][output][place] = value
    return answers


def test_equal_answers_have_no_problem(golden, reference):
    rows = compare("road", reference, golden, reference)
    assert problems(rows) == []
    assert [row.labels_equal for row in rows] == [6, 6, 1]


@pytest.mark.parametrize(
    ("output", "place", "value", "signature", "problem"),
    [
        ("label", 3, b"negative", "serving_default", "1 of 6 labels differ from the evaluation's, the first at text 4"),
        ("probabilities", (1, 0), 0.9, "serving_default", "a probability differs by 0.*, most at text 2"),
        ("probabilities", (4, 1), np.nan, "serving_default", "a probability differs by inf .*, most at text 5"),
        ("confidence", 5, np.inf, "serving_default", "a confidence differs by inf .*, most at text 6"),
        ("classes", (0, 0), b"bad", "serving_default", "1 of 6 rows of label names differ .* the first at text 1"),
        (
            "length",
            2,
            1,
            "statistics",
            r"signature 'statistics'\: 1 of 6 answers in 'length' differ from the SavedModel's",
        ),
        ("long", slice(None), True, "statistics", "of 6 answers in 'long' differ"),
        ("again_bytes", 0, b"", "statistics", "1 of 6 answers in 'again_bytes' differ .* text 1"),
        ("share", 1, -1.0, "statistics", "a value of 'share' differs by .* from the SavedModel's"),
        ("y", 0, 1.0, "numbers", "signature 'numbers': a value of 'y' differs by"),
    ],
)
def test_a_changed_answer_is_named_with_its_place(golden, reference, output, place, value, signature, problem):
    rows = compare("road", changed(reference, output, place, value, signature), golden, reference)
    (found,) = problems(rows)
    assert re.search(problem, found), found
    assert found.startswith("road")


def test_a_difference_within_the_tolerance_is_allowed(golden, reference):
    near = changed(reference, "probabilities", (0, 0), golden.probabilities[0, 0] + 0.5 * TOLERANCE)
    (row, *_) = compare("road", near, golden, reference)
    assert row.problems == []
    assert 0.4 * TOLERANCE < row.largest_difference < 0.6 * TOLERANCE


def test_rounding_may_decide_a_near_tie_either_way(golden, reference):
    probabilities = golden.probabilities.copy()
    probabilities[2] = 0.5 - 1e-6, 0.5 + 1e-6
    tied = replace(golden, probabilities=probabilities)
    answers = changed(reference, "probabilities", 2, probabilities[2])
    answers[DEFAULT_SIGNATURE]["confidence"][2] = 0.5
    answers[DEFAULT_SIGNATURE]["label"][2] = b"negative"
    assert problems(compare("road", answers, tied, reference)) == []


def test_large_numbers_are_compared_relatively_and_infinities_are_equal(golden, reference):
    large = changed(reference, "y", 0, 1e20, "numbers")
    nearly = changed(reference, "y", 0, 1.000001e20, "numbers")
    assert problems(compare("road", nearly, golden, large)) == []
    infinite = changed(reference, "y", 0, np.inf, "numbers")
    assert problems(compare("road", infinite, golden, infinite)) == []
    assert problems(compare("road", infinite, golden, large)) != []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda answer: answer.pop("label"), "the answer has no output 'label', only"),
        (lambda answer: answer.update(label=answer["label"][:5]), r"'label' has the shape \(5,\), expected was \(6,\)"),
        (lambda answer: answer.update(label=np.zeros(6)), "'label' has the dtype float64, expected was object"),
    ],
)
def test_an_answer_of_another_form_is_named(golden, reference, change, problem):
    answers = changed(reference, "label", 0, b"positive")
    change(answers[DEFAULT_SIGNATURE])
    (row, *_) = compare("road", answers, golden, reference)
    assert row.labels_equal is None
    assert re.search(problem, row.problems[0])


def test_the_table_has_a_line_for_every_row(golden, reference):
    heading, *lines = table(compare("SavedModel", reference, golden))
    assert heading.split("  ")[0] == "Road"
    assert len(lines) == 3
    assert [line.split()[1] for line in lines] == list(reference)
    assert lines[0].split()[2:4] == ["6", "6"]
    assert "reference" in lines[1]


@pytest.mark.parametrize(
    "content",
    ["[]", "{", "{}", json.dumps({"label_names": ["a"], "texts": ["x"], "labels": [], "probabilities": [[1.0]]})],
)
def test_damaged_golden_answers_are_refused(content, tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "golden.json").write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match=r"golden\.json"):
        read_golden(tmp_path)


def test_an_export_may_lie_anywhere(export, tmp_path):
    """A copy under a name that is no number is verified too, by the version that the URL names."""
    copy = tmp_path / "copied"
    shutil.copytree(export, copy)
    assert target("http://h:1/v1/models/reviews", copy) == Target("http://h:1", "reviews", None)
