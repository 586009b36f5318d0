"""The probes: real SavedModels in a real repository, asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tensorflow as tf
import uvicorn
from tensorflow_serving.apis import prediction_log_pb2

from app.serving.http.front import Front
from app.serving.http.health import Health
from app.serving.model_config import ModelSettings, VersionPolicy
from app.serving.readiness import ModelProbe, probe_row
from app.serving.repository import ModelRepository, ModelSpec
from app.serving.servable import WARM_UP_RECORDS, Servable

PATIENCE = 20  # seconds


class Counting(tf.Module):
    """Counts how often it is asked; refuses an empty text, and a text that is a file's name but no file's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0, dtype=tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def count(self, text):
        with tf.control_dependencies([self.calls.assign_add(1)]):
            return {"length": tf.strings.length(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def calls_so_far(self, text):
        return {"calls": tf.fill(tf.shape(text), self.calls)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def particular(self, text):
        with tf.control_dependencies([tf.debugging.assert_positive(tf.strings.length(text))]):
            return {"text": tf.identity(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def broken(self, text):
        return {"content": tf.map_fn(tf.io.read_file, text)}


def save(folder: Path, default: str, records: list[tuple[str, list[bytes]]] | None = None) -> Path:
    """A version folder whose `serving_default` is that function, with (signature, texts) as warm-up records."""
    module = Counting()
    signatures = {name: getattr(module, name) for name in ("calls_so_far", "particular")}
    tf.saved_model.save(module, str(folder), signatures={"serving_default": getattr(module, default), **signatures})
    if records is not None:
        path = folder / WARM_UP_RECORDS
        path.parent.mkdir()
        with tf.io.TFRecordWriter(str(path)) as writer:
            for signature, texts in records:
                log = prediction_log_pb2.PredictionLog()
                log.predict_log.request.model_spec.signature_name = signature
                log.predict_log.request.inputs["text"].CopyFrom(tf.make_tensor_proto(texts))
                writer.write(log.SerializeToString())
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each function, to be copied where a test wants it."""
    folder = tmp_path_factory.mktemp("saved")
    save(folder / "count", "count")
    save(folder / "particular", "particular")
    save(folder / "broken", "broken")
    save(folder / "recorded", "particular", [("serving_default", [b"one", b"two"]), ("particular", [b"three"])])
    return folder


@dataclass
class Running:
    url: str
    repository: ModelRepository
    health: Health
    front: Front

    def ready(self) -> tuple[int, dict[str, Any]]:
        response = requests.get(f"{self.url}/healthz/ready", timeout=PATIENCE)
        assert response.headers["content-type"] == "application/json"
        return response.status_code, response.json()


@contextlib.contextmanager
def running(models: dict[str, Path], **options: Any) -> Iterator[Running]:
    """The probes of a repository with these models, each with all its versions, behind the front."""
    policy = VersionPolicy("all")
    repository = ModelRepository(
        [ModelSettings(name, path, policy) for name, path in models.items()], Servable, poll_seconds=0.05
    )
    repository.start()
    health = Health(repository, **options)
    front = Front(health)
    server = uvicorn.Server(uvicorn.Config(front, lifespan="off", ws="none", log_config=None, log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", repository, health, front)
    finally:
        server.should_exit = True
        thread.join()
        repository.close()


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_ready_names_every_version_that_answered(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "count", tmp_path / "one" / "1")
    shutil.copytree(saved / "count", tmp_path / "one" / "12")
    shutil.copytree(saved / "recorded", tmp_path / "two" / "3")
    with running({"one": tmp_path / "one", "two": tmp_path / "two"}) as server:
        assert server.ready() == (200, {"models": {"one": ["12", "1"], "two": ["3"]}})


def test_live_asks_no_model_and_other_paths_and_methods_are_refused(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "broken", tmp_path / "1")
    with running({"broken": tmp_path}) as server:
        live = requests.get(f"{server.url}/healthz/live", timeout=PATIENCE)
        assert (live.status_code, live.json()) == (200, {"status": "alive"})
        assert requests.head(f"{server.url}/healthz/live", timeout=PATIENCE).status_code == 200
        assert requests.post(f"{server.url}/healthz/live", timeout=PATIENCE).status_code == 405
        other = requests.get(f"{server.url}/healthz/other", timeout=PATIENCE)
        assert other.status_code == 404
        assert "/healthz/live and /healthz/ready" in other.json()["error"]


def test_one_model_that_fails_makes_the_server_unready_and_says_which(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "count", tmp_path / "good" / "1")
    shutil.copytree(saved / "broken", tmp_path / "bad" / "7")
    with running({"good": tmp_path / "good", "bad": tmp_path / "bad"}) as server:
        assert server.repository.statuses(ModelSpec("bad"))[0].state == "AVAILABLE"  # what a status call would say
        status, body = server.ready()
        assert status == 503
        assert body["error"].startswith("bad version 7: ")
        assert body["models"] == {"good": ["1"], "bad": []}


def test_a_graph_that_refuses_a_blank_row_for_its_value_has_answered(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "particular", tmp_path / "1")
    with running({"particular": tmp_path}) as server:
        assert server.ready() == (200, {"models": {"particular": ["1"]}})


def test_the_row_is_the_first_of_the_first_warm_up_record_else_a_blank_one(saved: Path):
    name, inputs, is_blank = probe_row(Servable(saved / "recorded"))
    assert (name, is_blank) == ("serving_default", False)
    np.testing.assert_array_equal(inputs["text"], np.array([b"one"], object))
    name, inputs, is_blank = probe_row(Servable(saved / "count"))
    assert (name, is_blank) == ("serving_default", True)
    np.testing.assert_array_equal(inputs["text"], np.array([b""], object))


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, b"\xff" * 40, b"garbage that is no record at all"])
def test_a_warm_up_file_that_is_none_leaves_the_blank_row(saved: Path, tmp_path: Path, damage: bytes):
    folder = tmp_path / "1"
    shutil.copytree(saved / "recorded", folder)
    (folder / WARM_UP_RECORDS).write_bytes(damage)
    name, _, is_blank = probe_row(Servable(folder))
    assert (name, is_blank) == ("serving_default", True)


def test_a_recorded_row_that_is_refused_is_a_fault(saved: Path, tmp_path: Path):
    """A blank row may be refused; a row that the exporter recorded may not."""
    folder = tmp_path / "1"
    save(folder, "particular", [("serving_default", [b""])])
    repository = ModelRepository([ModelSettings("m", tmp_path)], Servable, poll_seconds=0, warm_up=False)
    repository.start()
    try:
        models, faults = ModelProbe(repository).check()
    finally:
        repository.close()
    assert models == {"m": []}
    assert len(faults) == 1
    assert faults[0].startswith("m version 1: ")


def test_a_model_whose_last_version_is_taken_away_is_not_ready_and_is_again_when_one_returns(
    saved: Path, tmp_path: Path
):
    shutil.copytree(saved / "count", tmp_path / "m" / "1")
    with running({"m": tmp_path / "m"}, cache_seconds=0.0) as server:
        assert server.ready()[0] == 200
        (tmp_path / "m" / "1").rename(tmp_path / "elsewhere")
        wait_until(lambda: server.ready()[0] == 503)
        assert server.ready()[1]["error"].startswith("m has no version that takes requests: ")
        (tmp_path / "elsewhere").rename(tmp_path / "m" / "2")
        wait_until(lambda: server.ready()[0] == 200)


def test_while_versions_change_hands_the_server_stays_ready(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "count", tmp_path / "m" / "1")
    with running({"m": tmp_path / "m"}, cache_seconds=0.0) as server:
        for version in range(2, 6):
            shutil.copytree(saved / "count", tmp_path / "new")
            (tmp_path / "new").rename(tmp_path / "m" / str(version))
            (tmp_path / "m" / str(version - 1)).rename(tmp_path / f"old{version}")
            deadline = time.monotonic() + 0.4
            while time.monotonic() < deadline:
                assert server.ready()[0] == 200


def test_many_probes_cost_one_prediction(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "count", tmp_path / "1")
    with running({"m": tmp_path}, cache_seconds=60.0) as server:
        before = calls(server.repository)
        probes = [threading.Thread(target=server.ready) for _ in range(20)]
        for probe in probes:
            probe.start()
        for probe in probes:
            probe.join()
        assert calls(server.repository) == before + 1


def test_an_old_answer_is_not_given_for_a_new_one(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "count", tmp_path / "1")
    with running({"m": tmp_path}, cache_seconds=0.0) as server:
        before = calls(server.repository)
        for _ in range(5):
            assert server.ready()[0] == 200
        assert calls(server.repository) == before + 5


def calls(repository: ModelRepository) -> int:
    with repository.lease(ModelSpec("m")) as servable:
        return int(servable.run("calls_so_far", {"text": np.array([b""], object)})["calls"][0])


def test_models_that_do_not_answer_in_time_are_not_ready(saved: Path, tmp_path: Path):
    class Slow(Servable):
        def run(self, signature_name, inputs):
            time.sleep(1)
            return super().run(signature_name, inputs)

    shutil.copytree(saved / "count", tmp_path / "1")
    repository = ModelRepository([ModelSettings("m", tmp_path)], Slow, poll_seconds=0, warm_up=False)
    repository.start()
    try:
        status, answer = asyncio.run(Health(repository, timeout_seconds=0.05).readiness())
        assert status == 503
        assert "did not answer within 0.05 s" in answer["error"]
    finally:
        repository.close()


def test_while_it_drains_the_server_is_not_ready_at_once_but_alive(saved: Path, tmp_path: Path):
    shutil.copytree(saved / "count", tmp_path / "1")
    with running({"m": tmp_path}, cache_seconds=60.0) as server:
        assert server.ready()[0] == 200
        server.health.begin_drain()
        assert server.ready() == (503, {"error": "The server is shutting down"})
        assert requests.get(f"{server.url}/healthz/live", timeout=PATIENCE).status_code == 200


def test_a_full_queue_is_no_reason_to_leave_the_others_the_load(saved: Path, tmp_path: Path):
    """What a batching queue answers when it is full, seen from the probe."""
    from app.serving.status import Code, ServingError

    class Busy(Servable):
        def run(self, signature_name, inputs):
            raise ServingError(Code.UNAVAILABLE, "The batch scheduling queue is full")

    shutil.copytree(saved / "count", tmp_path / "1")
    repository = ModelRepository([ModelSettings("m", tmp_path)], Busy, poll_seconds=0, warm_up=False)
    repository.start()
    try:
        health = Health(repository)
        assert asyncio.run(health.readiness()) == (200, {"models": {"m": ["1"]}})
    finally:
        repository.close()
