"""TensorFlow Serving's REST contract, asked of the real server over real HTTP."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow as tf

from app.errors import RequestError
from app.serving.model_config import ModelSettings
from app.serving.options import ServerOptions
from app.serving.server import run, serve_in_background
from app.serving.versions import resolve_model

with warnings.catch_warnings():
    # Its protobuf code of 2023 trips over deprecations in Python's and protobuf's newer versions.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ovmsclient

PROJECT = Path(__file__).parents[1]


def spec(dtype: tf.DType, *shape: int | None, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name=name)


class Toy(tf.Module):
    """One signature for each thing the contract speaks of."""

    @tf.function(input_signature=[spec(tf.string, None, name="text")])
    def classify(self, text):
        length = tf.cast(tf.strings.length(text), tf.float32)
        probabilities = tf.stack([1 / (1 + length), length / (1 + length)], axis=1)
        names = tf.constant(["short", "long"])
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
            "classes": tf.broadcast_to(names, tf.shape(probabilities)),
        }

    @tf.function(input_signature=[spec(tf.float32, None, name="a"), spec(tf.int64, None, name="b")])
    def two(self, a, b):
        return {"sum": a + tf.cast(b, tf.float32), "double_b": b * 2}

    @tf.function(input_signature=[spec(tf.float32, None, 2, name="x")])
    def matrix(self, x):
        return {"y": 2 * x}

    @tf.function(input_signature=[spec(tf.string, None, name="text")])
    def echo(self, text):
        return {"text": tf.identity(text)}

    @tf.function(input_signature=[spec(tf.string, None, name="text")])
    def as_bytes(self, text):
        return {"raw_bytes": tf.identity(text)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def number(self, x):
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[spec(tf.float64, None, name="x")])
    def double(self, x):
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def total(self, x):
        return {"y": tf.reduce_sum(x)}

    @tf.function(input_signature=[spec(tf.string, name="text")])
    def scalar(self, text):
        return {"length": tf.strings.length(text), "text": tf.strings.upper(text)}

    @tf.function(input_signature=[spec(tf.bool, None, name="flag"), spec(tf.int32, None, name="count")])
    def flags(self, flag, count):
        return {"flag": tf.logical_not(flag), "count": count + 1}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def bfloat16(self, x):
        return {"y": tf.cast(x, tf.bfloat16)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def half(self, x):
        return {"y": tf.cast(x, tf.float16)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def positive(self, x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="not positive")]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def uneven(self, x):
        return {"all": tf.identity(x), "less": x[1:]}


SIGNATURES = [
    *("two", "matrix", "echo", "as_bytes", "number", "double", "total", "scalar", "flags"),
    *("bfloat16", "half", "positive", "uneven"),
]


@pytest.fixture(scope="module")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 3 is whole; 5 lacks its saved_model.pb; the other names are no versions."""
    base = tmp_path_factory.mktemp("models") / "toy"
    toy = Toy()
    signatures = {name: getattr(toy, name) for name in SIGNATURES}
    tf.saved_model.save(toy, str(base / "3"), signatures={"serving_default": toy.classify, **signatures})
    for name in ("5", "v9", "9.5", "-9"):
        (base / name).mkdir()
    return base


@pytest.fixture(scope="module")
def url(base_path: Path):
    with serve_in_background("toy", base_path) as url:
        yield url


@pytest.fixture(scope="module")
def model_url(url: str) -> str:
    return f"{url}/v1/models/toy"


def error_of(response: requests.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    return body["error"]


def process_element(message: str, index: int = 0) -> str:
    return f"Failed to process element: {index} of 'instances' list. Error: INVALID_ARGUMENT: {message}"


def wrong_type(value: str, kind: str, expected: str) -> str:
    return f"JSON Value: {value} Type: {kind} is not of expected type: {expected}"


SHORT = {"label": "short", "confidence": 0.5, "probabilities": [0.5, 0.5], "classes": ["short", "long"]}
LONG = {"label": "long", "confidence": 0.75, "probabilities": [0.25, 0.75], "classes": ["short", "long"]}
TWO_AS_COLUMNS = {"outputs": {"sum": [2.5], "double_b": [4]}}

ANSWERS = [
    # Rows.
    ("", '{"instances": ["a", "bbb"]}', {"predictions": [SHORT, LONG]}),
    ("", '{"instances": [{"text": "a"}, {"text": "bbb"}]}', {"predictions": [SHORT, LONG]}),
    ("serving_default", '{"instances": ["a"]}', {"predictions": [SHORT]}),
    ("two", '{"instances": [{"a": 0.5, "b": 2}]}', {"predictions": [{"sum": 2.5, "double_b": 4}]}),
    ("two", '{"instances": [{"b": 2, "a": 1}]}', {"predictions": [{"sum": 3.0, "double_b": 4}]}),
    ("matrix", '{"instances": [[1, 2.5], [3, 4]]}', {"predictions": [[2.0, 5.0], [6.0, 8.0]]}),
    ("matrix", '{"instances": [{"x": [1, 2]}]}', {"predictions": [[2.0, 4.0]]}),
    # Columns.
    ("", '{"inputs": ["a"]}', {"outputs": {key: [value] for key, value in SHORT.items()}}),
    ("", '{"inputs": {"text": ["a"]}}', {"outputs": {key: [value] for key, value in SHORT.items()}}),
    ("", '{"inputs": []}', {"outputs": {key: [] for key in SHORT}}),
    ("two", '{"inputs": {"a": [0.5], "b": [2]}}', TWO_AS_COLUMNS),
    ("two", '{"inputs": {"a": [0.5], "b": [2], "more": 1}}', TWO_AS_COLUMNS),
    ("matrix", '{"inputs": [[1, 2]]}', {"outputs": [[2.0, 4.0]]}),
    ("total", '{"inputs": [1, 2]}', {"outputs": 3.0}),
    ("scalar", '{"inputs": "ab"}', {"outputs": {"length": 2, "text": "AB"}}),
    ("scalar", '{"inputs": {"b64": "YWI="}}', {"outputs": {"length": 2, "text": "AB"}}),
    ("uneven", '{"inputs": [1, 2]}', {"outputs": {"all": [1.0, 2.0], "less": [2.0]}}),
    # Strings and bytes.
    (
        "echo",
        '{"instances": ["ż \\ud83d\\ude00 \\u0000 \\" \\\\"]}',
        {"predictions": ['ż 😀 \0 " \\']},
    ),
    (
        "echo",
        '{"instances": [{"b64": "YWI="}, {"b64": "YWI"}, {"b64": ""}]}',
        {"predictions": ["ab", "ab", ""]},
    ),
    ("echo", '{"instances": [{"text": {"b64": "YWI="}}]}', {"predictions": ["ab"]}),
    ("as_bytes", '{"instances": ["ab", ""]}', {"predictions": [{"b64": "YWI="}, {"b64": ""}]}),
    ("as_bytes", '{"instances": [{"b64": "/w=="}]}', {"predictions": [{"b64": "/w=="}]}),
    # Numbers.
    ("number", '{"instances": [1e39, -1e39, 2]}', {"predictions": [float("inf"), float("-inf"), 2.0]}),
    ("number", '{"instances": [Infinity, -Infinity, Inf]}', {"predictions": [np.inf, -np.inf, np.inf]}),
    ("double", '{"instances": [0.1, 1e39]}', {"predictions": [0.1, 1e39]}),
    ("flags", '{"inputs": {"flag": [true], "count": [-3]}}', {"outputs": {"flag": [False], "count": [-2]}}),
    # What is overlooked.
    ("echo", '{"instances": ["a"], "other": {"x": [1]}}', {"predictions": ["a"]}),
    ("echo", '{"instances": ["first"], "instances": ["second"]}', {"predictions": ["first"]}),
    ("echo", '{"instances": ["a"]} and more text', {"predictions": ["a"]}),
    ("echo", '\ufeff \n{"instances": ["a"]}', {"predictions": ["a"]}),
]

QUOTED_BOTH = '{\n    "instances": [\n        1\n    ],\n    "inputs": [\n        1\n    ]\n}'
PLAIN_LIST = (
    "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
)
PLAIN_VALUE = (
    "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
)

ERRORS = [
    # The document.
    ("", "", "JSON Parse error: The document is empty"),
    ("", "  ", "JSON Parse error: The document is empty. at offset: 2"),
    ("", '{"instances": [tru]}', "JSON Parse error: Invalid value. at offset: 18"),
    ("", '{"instances": nan}', "JSON Parse error: Invalid value. at offset: 15"),
    ("", '{"instances": [1,]}', "JSON Parse error: Invalid value. at offset: 17"),
    ("", "{instances: 1}", "JSON Parse error: Missing a name for object member. at offset: 1"),
    ("", '{"é": "\\ud800"}', "JSON Parse error: The surrogate pair in string is invalid. at offset: 8"),
    ("", "[1]", "JSON Value: [\n    1\n] Is not object"),
    ("", '"a"', 'JSON Value: "a" Is not object'),
    ("", "{}", "Missing 'inputs' or 'instances' key"),
    (
        "",
        '{"instances": [1], "inputs": [1]}',
        f"JSON Value: {QUOTED_BOTH} Not formatted correctly expecting only one"
        " of 'inputs' or 'instances' keys to exist ",
    ),
    ("", '{"instances": []}', "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
    (
        "",
        '{"instances": 1}',
        "JSON Value: {\n    \"instances\": 1\n} Expecting 'instances' to be an list/array",
    ),
    (
        "",
        '{"signature_name": 1}',
        'JSON Value: {\n    "signature_name": 1\n} not formatted correctly.'
        " 'signature_name' key must be a string value.",
    ),
    ("nope", '{"instances": ["a"]}', 'Serving signature name: "nope" not found in signature def'),
    ("nope", "{}", 'Serving signature name: "nope" not found in signature def'),
    # Types.
    ("", '{"instances": [1]}', process_element(wrong_type("1", "Number", "string"))),
    ("", '{"instances": ["a", null]}', process_element(wrong_type("null", "Null", "string"), 1)),
    ("", '{"instances": [true]}', process_element(wrong_type("true", "True", "string"))),
    ("", '{"inputs": [false]}', wrong_type("false", "False", "string")),
    ("number", '{"inputs": ["1"]}', wrong_type('"1"', "String", "float")),
    ("number", '{"inputs": [true]}', wrong_type("true", "True", "float")),
    ("two", '{"inputs": {"a": [1], "b": [1.0]}}', wrong_type("1.0", "Number", "int64")),
    ("flags", '{"inputs": {"flag": [1], "count": [1]}}', wrong_type("1", "Number", "bool")),
    (
        "flags",
        '{"inputs": {"flag": [true], "count": [2147483648]}}',
        wrong_type("2147483648", "Number", "int32"),
    ),
    ("", '{"instances": [{"b64": "?"}]}', process_element("Unable to base64 decode")),
    ("", '{"instances": [{"b64": "_-8="}]}', process_element("Unable to base64 decode")),
    (
        "",
        '{"inputs": {"text": [{"b64": 1}]}}',
        'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data',
    ),
    # Names.
    (
        "",
        '{"instances": [{"txt": "a"}]}',
        "Failed to process element: 0 key: txt of 'instances' list."
        " Error: INVALID_ARGUMENT: JSON object: does not have named input: txt",
    ),
    (
        "two",
        '{"instances": [{"a": 1}]}',
        "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"a\": 1\n} keys must be equal to: a,b",
    ),
    ("", '{"inputs": {"txt": ["a"]}}', "Missing named input: text in 'inputs' object."),
    ("two", '{"instances": [1]}', PLAIN_LIST),
    ("two", '{"inputs": [1]}', PLAIN_VALUE),
    # Shapes.
    ("", '{"instances": [{"text": "a"}, "b"]}', "Expecting object but got list at item 1 of input list"),
    (
        "",
        '{"instances": ["b", {"text": "a"}]}',
        "Expecting value/list but got object at item 1 of input list",
    ),
    ("matrix", '{"instances": [[1, 2], [1]]}', process_element("Expecting tensor size: 2 but got: 1", 1)),
    ("number", '{"instances": [1, [1]]}', process_element("Expecting shape [] but got: [1]", 1)),
    (
        "matrix",
        '{"inputs": [[1, 2], [1]]}',
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    (
        "matrix",
        '{"inputs": [[1, 2], 1]}',
        "JSON Value: 1 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    ("matrix", '{"inputs": [1, [1]]}', "Encountered list at unexpected level: 1 expected < 1"),
    # The real server aborts at this one.
    ("", '{"instances": [[]]}', "Input text has shape [1,0] but the signature takes [-1]"),
    ("matrix", '{"instances": [[1, 2, 3]]}', "Input x has shape [1,3] but the signature takes [-1,2]"),
    # What cannot be answered.
    ("total", '{"instances": [1, 2]}', "Tensor name: y has no shape information "),
    ("bfloat16", '{"instances": [1]}', "Failed to write JSON value for tensor type: bfloat16"),
    ("half", '{"inputs": [1]}', "Failed to write JSON value for tensor type: half"),
]


def with_signature(body: str, signature_name: str) -> str:
    """The body with the signature's name as its first member, byte offsets of broken bodies untouched."""
    return body.replace("{", f'{{"signature_name": "{signature_name}", ', 1) if signature_name else body


@pytest.mark.parametrize(("signature_name", "body", "expected"), ANSWERS)
def test_answers_equal_those_of_tensorflow_serving(model_url, signature_name, body, expected):
    response = requests.post(f"{model_url}:predict", data=with_signature(body, signature_name).encode())
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json() == expected


@pytest.mark.parametrize(("signature_name", "body", "message"), ERRORS)
def test_bad_requests_get_tensorflow_servings_words(model_url, signature_name, body, message):
    if signature_name == "nope" and body == "{}":
        body = '{"signature_name": "nope"}'
    elif signature_name:
        body = with_signature(body, signature_name)
    response = requests.post(f"{model_url}:predict", data=body.encode())
    assert (response.status_code, error_of(response)) == (400, message)


def test_uneven_outputs_have_no_rows(model_url):
    response = requests.post(f"{model_url}:predict", json={"signature_name": "uneven", "instances": [1, 2]})
    assert response.status_code == 400
    assert "has inconsistent batch size" in error_of(response)


def test_the_graphs_own_refusal_is_a_bad_request_with_its_reason(model_url):
    response = requests.post(f"{model_url}:predict", json={"signature_name": "positive", "instances": [-1]})
    assert response.status_code == 400
    assert error_of(response).startswith("assertion failed: [not positive")


def test_floats_are_written_as_tensorflow_serving_writes_them(model_url):
    numbers = "[2.5, 3, 9000000, 123456.703, 0.1, 1e-5, -0.0, NaN, -Infinity]"
    body = f'{{"signature_name": "number", "inputs": {numbers}}}'
    text = requests.post(f"{model_url}:predict", data=body).text
    assert text == '{"outputs": [2.5, 3.0, 9e+06, 123456.703, 0.1, 1e-05, -0.0, NaN, -Infinity]}'


def test_bytes_that_are_no_utf8_pass_through(model_url):
    body = b'{"signature_name": "echo", "instances": ["caf\xe9"]}'
    assert requests.post(f"{model_url}:predict", data=body).content == b'{"predictions": ["caf\xe9"]}'


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_the_content_type_of_a_request_does_not_matter(model_url, content_type):
    headers = {"Content-Type": content_type}
    response = requests.post(f"{model_url}:predict", data='{"instances": ["a"]}', headers=headers)
    assert response.json() == {"predictions": [SHORT]}


def test_gzip_bodies_are_unpacked(model_url):
    packed = gzip.compress(b'{"instances": ["a"]}')
    response = requests.post(f"{model_url}:predict", data=packed, headers={"Content-Encoding": "gzip"})
    assert response.json() == {"predictions": [SHORT]}


@pytest.mark.parametrize("body", [b"", b"no gzip", gzip.compress(b'{"instances": ["a"]}')[:-12]])
def test_broken_gzip_counts_as_empty(model_url, body):
    response = requests.post(f"{model_url}:predict", data=body, headers={"Content-Encoding": "gzip"})
    assert (response.status_code, error_of(response)) == (400, "JSON Parse error: The document is empty")


@pytest.mark.parametrize("packed", [False, True])
def test_a_body_beyond_the_limit_is_413(model_url, packed):
    body = b" " * (100 * 1024 * 1024 + 1)
    body, headers = (gzip.compress(body, 1), {"Content-Encoding": "gzip"}) if packed else (body, {})
    response = requests.post(f"{model_url}:predict", data=body, headers=headers)
    assert response.status_code == 413
    assert error_of(response).startswith("The request body is larger than 104857600 bytes")


def test_a_version_of_thousands_of_digits_is_a_bad_request(model_url):
    for digits, status in (("9" * 5000, 400), ("0" * 5000 + "3", 200)):
        assert requests.get(f"{model_url}/versions/{digits}").status_code == status


def test_a_client_that_leaves_in_the_middle_does_no_harm(model_url, caplog):
    host, port = model_url.split("/")[2].split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert requests.get(model_url).status_code == 200
    assert caplog.records == []


@pytest.mark.parametrize("depth", [200, 3000, 100_000])
def test_deep_nesting_is_a_bad_request(model_url, depth):
    body = f'{{"instances": {"[" * depth}{"]" * depth}}}'
    assert requests.post(f"{model_url}:predict", data=body).status_code == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/toy/versions/3:predict", 200),
        ("/v1/models/toy/versions/03:predict", 200),
        ("/V1/Models/toy/Versions/3:predict", 200),
        ("/v1/models/%74oy:predict", 200),
    ],
)
def test_paths_that_lead_to_the_model(url, path, status):
    response = requests.post(url + path, data='{"instances": ["a"]}')
    assert (response.status_code, response.json()) == (status, {"predictions": [SHORT]})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/toy:predict"),
        ("PUT", "/v1/models/toy:predict"),
        ("DELETE", "/v1/models/toy"),
        ("POST", "/v1/models/toy"),
        ("POST", "/v1/models/toy/metadata"),
        ("POST", "/v1/models/toy:predict/"),
        ("GET", "/v1/models/toy/"),
        ("POST", "/v1/models/toy:PREDICT"),
        ("POST", "/v1/models/toy:foo"),
        ("POST", "/v1/models/toy/versions/abc:predict"),
        ("POST", "/v1/models/toy/versions/3/labels/stable:predict"),
        ("GET", "/v1/models/toy/versions/3/labels/stable"),
        ("POST", "/v1/models/toy:predict?x=1"),
        ("GET", "/v1/models/toy/metadata?x=1"),
        ("GET", "/v1/"),
    ],
)
def test_what_matches_no_route_is_malformed(url, method, path):
    response = requests.request(method, url + path, data='{"instances": ["a"]}')
    assert (response.status_code, error_of(response)) == (400, f"Malformed request: {method} {path}")


def test_head_is_malformed_and_has_no_body(model_url):
    response = requests.head(model_url)
    assert (response.status_code, response.content) == (400, b"")


@pytest.mark.parametrize("path", ["/v1", "/v2/models/toy", "/docs", "/openapi.json"])
def test_outside_the_api_nothing_is_found(url, path):
    assert requests.get(url + path).status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/none:predict", 404, "Servable not found for request: Latest(none)"),
        ("/toy/versions/99:predict", 404, "Servable not found for request: Specific(toy, 99)"),
        ("/none/versions/1:predict", 404, "Servable not found for request: Specific(none, 1)"),
        ("/toy/versions/5:predict", 404, "Servable not found for request: Specific(toy, 5)"),
        ("/toy/labels/nolabel:predict", 400, "Unrecognized servable version label: nolabel"),
        (
            "/toy/versions/99999999999999999999:predict",
            400,
            "Failed to convert version: 99999999999999999999 to numeric.",
        ),
        (
            "/toy:classify",
            400,
            "Expected classification signature method_name to be tensorflow/serving/classify."
            " Was: tensorflow/serving/predict",
        ),
        (
            "/toy:regress",
            400,
            "Expected regression signature method_name to be tensorflow/serving/regress."
            " Was: tensorflow/serving/predict",
        ),
        ("/none:classify", 404, "Servable not found for request: Latest(none)"),
    ],
)
def test_what_cannot_be_asked_of_the_models(url, path, status, message):
    response = requests.post(f"{url}/v1/models{path}", data='{"instances": ["a"], "examples": [{"text": "a"}]}')
    assert (response.status_code, error_of(response)) == (status, message)


def test_status_lists_versions_newest_first_with_the_broken_one_as_end(model_url):
    broken, served = requests.get(model_url).json()["model_version_status"]
    assert (broken["version"], broken["state"], broken["status"]["error_code"]) == ("5", "END", "NOT_FOUND")
    assert "saved_model.pb" in broken["status"]["error_message"]
    assert served == {
        "version": "3",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


@pytest.mark.parametrize("path", ["/versions/3", "/versions/03"])
def test_status_of_one_version(model_url, path):
    (served,) = requests.get(model_url + path).json()["model_version_status"]
    assert (served["version"], served["state"]) == ("3", "AVAILABLE")


def test_status_ignores_a_label(model_url):
    assert requests.get(f"{model_url}/labels/nolabel").json() == requests.get(model_url).json()


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("", 400, "Missing model name in request."),
        ("/none", 404, "Could not find any versions of model none"),
        ("/no%20ne", 404, "Could not find any versions of model no ne"),
        ("/toy/versions/99", 404, "Could not find version 99 of model toy"),
        ("/none/metadata", 404, "Servable not found for request: Latest(none)"),
        ("/toy/versions/99/metadata", 404, "Servable not found for request: Specific(toy, 99)"),
        ("/toy/labels/nolabel/metadata", 400, "Unrecognized servable version label: nolabel"),
    ],
)
def test_status_and_metadata_of_what_is_not_there(url, path, status, message):
    response = requests.get(f"{url}/v1/models{path}")
    assert (response.status_code, error_of(response)) == (status, message)


def test_metadata_declares_every_signature(model_url):
    answer = requests.get(f"{model_url}/metadata").json()
    assert answer["model_spec"] == {"name": "toy", "version": "3", "signature_name": ""}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "__saved_model_init_op", *SIGNATURES}
    matrix = signatures["matrix"]
    assert (matrix["method_name"], matrix["defaults"]) == ("tensorflow/serving/predict", {})
    assert matrix["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
            "unknown_rank": False,
        },
        "name": "matrix_x:0",
    }


def test_a_foreign_client_predicts_and_reads_status_and_metadata(url):
    # Without a version it asks for version 0, which only OpenVINO's server takes for the latest.
    client = ovmsclient.make_http_client(url.removeprefix("http://"))
    answer = client.predict({"text": ["a", "bbb"]}, "toy", model_version=3)
    assert list(answer["label"]) == ["short", "long"]
    np.testing.assert_allclose(answer["probabilities"], [[0.5, 0.5], [0.25, 0.75]])
    assert client.get_model_status("toy", model_version=3)[3]["state"] == "AVAILABLE"
    # Its reader looks for OpenVINO's camelCase names and hands on an answer of TensorFlow Serving's as it is.
    assert client.get_model_metadata("toy", model_version=3)["model_spec"]["version"] == "3"


def test_many_clients_at_once_each_get_their_own_answer(model_url):
    def ask(length: int) -> float:
        answer = requests.post(f"{model_url}:predict", json={"instances": ["x" * length]})
        return answer.json()["predictions"][0]["probabilities"][1]

    lengths = range(1, 65)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, lengths))
    np.testing.assert_allclose(answers, [length / (1 + length) for length in lengths], rtol=1e-6)


def test_a_busy_port_is_named(url, base_path):
    port = int(url.rpartition(":")[2])
    with pytest.raises(RequestError, match=f"port {port} on 127.0.0.1 is in use"):
        run(ServerOptions((ModelSettings("toy", base_path),), rest_api_port=port))


def test_a_port_that_does_not_exist_is_refused(base_path):
    with pytest.raises(RequestError, match="port 70000"):
        run(ServerOptions((ModelSettings("toy", base_path),), rest_api_port=70000))


def test_a_single_version_folder_is_served_alone(base_path):
    with serve_in_background("toy", base_path / "3") as url:
        (status,) = requests.get(f"{url}/v1/models/toy").json()["model_version_status"]
    assert (status["version"], status["state"]) == ("3", "AVAILABLE")


def test_the_server_is_gone_after_its_block(base_path):
    with serve_in_background("toy", base_path) as url:
        assert requests.get(f"{url}/v1/models/toy").status_code == 200
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/v1/models/toy")


def test_a_server_process_answers_and_ends_with_0_on_sigterm(base_path):
    program = (
        "import sys; from pathlib import Path; from app.serving.server import run;"
        "from app.serving.options import ServerOptions; from app.serving.model_config import ModelSettings;"
        "options = ServerOptions((ModelSettings('toy', Path(sys.argv[1])),), rest_api_port=0);"
        "run(options, on_ready=lambda addresses: print(addresses.url, flush=True))"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", program, str(base_path)]
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        answer = requests.post(f"{url}/v1/models/toy:predict", json={"instances": ["a"]})
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
    assert answer.json() == {"predictions": [SHORT]}
    assert (process.returncode, rest) == (0, "")


def test_the_server_modules_do_not_import_tensorflow_before_a_model_is_loaded():
    program = "import sys, app.serving.server, app.serving.engines; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=False).returncode == 0


# --- which folder is served ---


def export_stub(exports: Path, name: str, version: int, age: float) -> Path:
    folder = exports / name / str(version)
    folder.mkdir(parents=True)
    file = folder / "saved_model.pb"
    file.write_bytes(b"")
    os.utime(file, (time.time() - age,) * 2)
    return folder


def test_without_a_path_the_model_exported_last_is_served(tmp_path):
    export_stub(tmp_path, "first", 1, age=30)
    export_stub(tmp_path, "second", 2, age=10)
    export_stub(tmp_path, "third", 9, age=20)
    assert resolve_model(None, None, tmp_path) == ("second", tmp_path / "second")
    assert resolve_model(None, "third", tmp_path) == ("third", tmp_path / "third")


def test_a_path_names_the_model_unless_a_name_is_given(tmp_path):
    folder = export_stub(tmp_path, "reviews", 4, age=0)
    assert resolve_model(tmp_path / "reviews", None, tmp_path) == ("reviews", tmp_path / "reviews")
    assert resolve_model(folder, None, tmp_path) == ("reviews", folder)
    assert resolve_model(folder, "other", tmp_path) == ("other", folder)


def test_models_that_cannot_be_resolved_say_what_is_allowed(tmp_path):
    exports = tmp_path / "exports"
    with pytest.raises(RequestError, match=r"nothing exported yet .* train first: python train.py"):
        resolve_model(None, None, exports)
    export_stub(exports, "reviews", 1, age=0)
    with pytest.raises(RequestError, match=r"no exported model 'review'.* did you mean reviews"):
        resolve_model(None, "review", exports)
    with pytest.raises(RequestError, match=r"did you mean .*reviews"):
        resolve_model(exports, None, exports)
    with pytest.raises(RequestError, match="is no folder"):
        resolve_model(tmp_path / "nowhere", None, exports)
    with pytest.raises(RequestError, match="model name 'a/b'"):
        resolve_model(exports / "reviews", "a/b", exports)


def test_error_bodies_are_json_whatever_the_message_holds(url):
    response = requests.post(f'{url}/v1/models/toy:predict"\\', data="{}")
    assert json.loads(response.text)["error"].startswith("Malformed request: POST /v1/models/toy:predict")
