"""The log of requests: a line of JSON each, and what must never be in one."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from front_server import (
    PATIENCE,
    TOKEN,
    Running,
    running,
    running_with_small_limits,
    wait_until,
)

from app.serving.http.access import Access
from app.serving.http.request_log import log_json_lines


@pytest.fixture(autouse=True, scope="module")
def _info_is_logged() -> Iterator[None]:
    logger = logging.getLogger("app.serving.requests")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running_with_small_limits() as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    """With a token, and CORS."""
    with running(
        access=Access([TOKEN]), cors=True, access_log=True, open_paths=frozenset({"/", "/page/page.js"})
    ) as server:
        yield server


def test_a_request_is_one_line_of_json_without_its_text_its_query_or_its_token(guarded: Running):
    text, query = b'{"instances": ["a secret text"]}', "key=a-secret-key"
    _, _, headers = guarded.ask(
        "POST", f"/v1/models/m%C3%BC/versions/2:predict?{0}", text, Authorization=f"Bearer {TOKEN}"
    )
    guarded.ask("GET", f"/v1/models/m?{query}", Authorization="Bearer a-wrong-token-somebody-has")
    line = next(line for line in guarded.lines() if line.get("request_id") == headers["x-request-id"])
    assert line.keys() == {
        *("time", "level", "logger", "message", "request_id", "method", "path", "status", "milliseconds"),
        *("request_bytes", "response_bytes", "model"),
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert (line["method"], line["status"], line["model"]) == ("POST", 200, "mü")
    assert line["path"] == "/v1/models/m%C3%BC/versions/2:predict"
    assert line["request_bytes"] == len(text)
    assert line["response_bytes"] == int(headers["content-length"])
    assert 0 <= line["milliseconds"] < PATIENCE * 1000
    for secret in (TOKEN, "a secret text", query, "a-wrong-token"):
        assert secret not in guarded.log.getvalue()


def test_refusals_and_clients_that_left_are_logged_too(server: Running):
    server.raw(b"POST /v1/left HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n123").close()
    wait_until(lambda: [line for line in server.lines() if line.get("path") == "/v1/left"])
    (left,) = [line for line in server.lines() if line.get("path") == "/v1/left"]
    assert left["status"] == 499
    server.ask("POST", "/v1/too-large", b"x" * 200_000)
    wait_until(lambda: [line for line in server.lines() if line.get("path") == "/v1/too-large"])
    assert [line["status"] for line in server.lines() if line.get("path") == "/v1/too-large"] == [413]


def test_a_path_without_end_is_cut_and_control_characters_stay_inside_the_line(server: Running):
    server.ask("GET", "/v1/models/a%0Ab%22" + "x" * 1_000)
    line = next(line for line in server.lines() if line.get("model", "").startswith('a\nb"'))
    assert len(line["path"]) == 203
    assert len(line["model"]) == 200


def test_the_log_is_off_unless_it_is_asked_for():
    with running() as server:
        server.ask("GET", "/v1/x")
        server.ask("POST", "/v1/x", b"12345")
    assert server.log.getvalue() == ""


def test_every_log_line_of_the_server_is_json_requests_and_failures_of_other_parts():
    stream = io.StringIO()
    ours, library = logging.getLogger("app"), logging.getLogger("some.library")
    level = ours.level
    handler = log_json_lines(stream)
    try:
        logging.getLogger("app.serving.repository").info("loading %s\nfrom %s", "toy", "/models")
        library.info("not worth a line")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            library.exception("it went wrong")
        with running(access_log=True) as server:
            server.ask("GET", "/v1/models/toy")
    finally:
        logging.getLogger().removeHandler(handler)
        ours.setLevel(level)
    loading, wrong, request = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (loading["level"], loading["message"]) == ("info", "loading toy\nfrom /models")
    assert (wrong["level"], wrong["logger"]) == ("error", "some.library")
    assert "No space left on device" in wrong["exception"]
    assert (request["message"], request["model"], request["status"]) == ("request", "toy", 200)
