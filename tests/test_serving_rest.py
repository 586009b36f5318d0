"""The embedded server beyond TensorFlow Serving's contract, over real HTTP; the contract itself is in conformance/."""

import gzip
import json
import os
import socket
import subprocess
import sys
import time
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

PROJECT = Path(__file__).parents[1]


class Toy(tf.Module):
    """A share that depends on the length of the text, and twice a matrix."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def share(self, text):
        length = tf.cast(tf.strings.length(text), tf.float32)
        return {"share": length / (1 + length)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def matrix(self, x):
        return {"y": 2 * x}


@pytest.fixture(scope="module")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 3 is whole; 5 lacks its saved_model.pb; the other names are no versions."""
    base = tmp_path_factory.mktemp("models") / "toy"
    toy = Toy()
    tf.saved_model.save(toy, str(base / "3"), signatures={"serving_default": toy.share, "matrix": toy.matrix})
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


@pytest.mark.parametrize(
    ("signature_name", "instances", "message"),
    [
        # TensorFlow Serving aborts at this one.
        ("", [[]], "Input text has shape [1,0] but the signature takes [-1]"),
        ("", [["a", "b"]], "Input text has shape [1,2] but the signature takes [-1]"),
        ("matrix", [[1, 2, 3]], "Input x has shape [1,3] but the signature takes [-1,2]"),
    ],
)
def test_a_shape_that_the_signature_does_not_take_is_a_bad_request(model_url, signature_name, instances, message):
    response = requests.post(f"{model_url}:predict", json={"signature_name": signature_name, "instances": instances})
    assert (response.status_code, error_of(response)) == (400, message)


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


@pytest.mark.parametrize("path", ["/v1", "/docs", "/openapi.json", "/no/such/page"])
def test_what_is_neither_the_api_nor_the_page_is_not_found(url, path):
    assert requests.get(url + path).status_code == 404


def test_error_bodies_are_json_whatever_the_message_holds(url):
    response = requests.post(f'{url}/v1/models/toy:predict"\\', data="{}")
    assert json.loads(response.text)["error"].startswith("Malformed request: POST /v1/models/toy:predict")


def test_a_version_that_was_broken_from_the_start_is_listed_and_the_one_below_serves(model_url):
    broken, served = requests.get(model_url).json()["model_version_status"]
    assert (broken["version"], broken["state"], broken["status"]["error_code"]) == ("5", "END", "NOT_FOUND")
    assert "saved_model.pb" in broken["status"]["error_message"]
    assert served == {
        "version": "3",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


def test_many_clients_at_once_each_get_their_own_answer(model_url):
    def ask(length: int) -> float:
        answer = requests.post(f"{model_url}:predict", json={"instances": ["x" * length]})
        return answer.json()["predictions"][0]

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
