"""The front around a small application, on a real server: real sockets, with time limits short enough to wait for."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from front_server import (
    PATIENCE,
    SHORT,
    TOKEN,
    Running,
    drip,
    read_all,
    running,
    running_with_small_limits,
    status_and_error,
)

from app.errors import RequestError
from app.serving.http.access import Access
from app.serving.http.front import FrontOptions


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


def test_the_body_arrives_in_one_piece_however_it_was_sent(server: Running):
    assert server.ask("POST", "/v1/x", b"12345")[1] | {"id": ""} == {
        "path": "/v1/x",
        "size": 5,
        "id": "",
        "whole": True,
    }
    big = b"x" * 99_999
    assert server.ask("POST", "/v1/x", big)[1]["size"] == 99_999
    head = b"POST /v1/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    with server.raw(head) as connection:
        for _ in range(20):
            connection.sendall(b"3\r\nabc\r\n")
            time.sleep(0.002)
        connection.sendall(b"0\r\n\r\n")
        assert json.loads(read_all(connection).partition(b"\r\n\r\n")[2])["size"] == 60


def test_a_kept_connection_answers_one_request_after_the_other(server: Running):
    with contextlib.closing(http.client.HTTPConnection(*server.address, timeout=PATIENCE)) as connection:
        for size in range(50):
            connection.request("POST", "/v1/x", b"x" * size)
            assert json.loads(connection.getresponse().read())["size"] == size


def test_every_answer_has_a_request_id_the_clients_own_if_it_is_sane(server: Running):
    _, answer, headers = server.ask("GET", "/v1/x")
    assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])
    assert answer["id"] == headers["x-request-id"]
    for given in ("abc-123", "Root=1-67891233-abcdef012345678912345678", "a/b:c.d_e+f="):
        assert server.ask("GET", "/v1/x", X_Request_Id=given)[2]["x-request-id"] == given
    for given in ('"', "a b", "x" * 129, "<script>", "a;b", "{}"):
        assert re.fullmatch("[0-9a-f]{16}", server.ask("GET", "/v1/x", X_Request_Id=given)[2]["x-request-id"])


def test_a_declared_body_above_the_limit_is_refused_before_it_is_sent(server: Running):
    with server.raw(
        b"POST /v1/big HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 100001\r\n\r\n"
    ) as one:
        assert one.recv(12) == b"HTTP/1.1 413"  # and not 100 Continue
        one.shutdown(socket.SHUT_RDWR)
    assert "/v1/big" not in server.app.seen


def test_a_client_that_sends_everything_first_can_still_read_why_it_was_refused(guarded: Running):
    """The limit is 100 MiB there; and a client that does not listen while it sends loses an answer that is cut off."""
    body = b"x" * (100 * 1024 * 1024 + 1)
    status, answer, headers = guarded.ask("POST", "/v1/big", body, Authorization=f"Bearer {TOKEN}")
    assert status == 413
    assert answer == {"error": "The request body is larger than 104857600 bytes"}
    assert headers["connection"] == "close"
    assert "/v1/big" not in guarded.app.seen


def test_a_body_in_chunks_is_refused_once_it_is_too_large(server: Running):
    head = b"POST /v1/big HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    with server.raw(head) as connection:
        for _ in range(11):
            connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert status_and_error(read_all(connection))[0] == 413
    assert "/v1/big" not in server.app.seen


@pytest.mark.parametrize("start", [b"", b"12345"])
def test_a_body_that_does_not_arrive_is_waited_for_no_longer_than_the_limit(server: Running, start: bytes):
    head = b"POST /v1/slow HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n"
    status, error = status_and_error(read_all(server.raw(head + start)))
    assert (status, error) == (408, f"The request body did not arrive within {SHORT} s")
    assert "/v1/slow" not in server.app.seen


def test_a_body_that_drips_is_not_waited_for_either(server: Running):
    with server.raw(b"POST /v1/slow HTTP/1.1\r\nhost: a\r\ncontent-length: 90000\r\n\r\n") as connection:
        assert b"408" in drip(connection, b"x")
    assert "/v1/slow" not in server.app.seen


def test_what_breaks_inside_is_a_500_whose_text_is_neither_answered_nor_logged(server: Running):
    status, answer, headers = server.ask("POST", "/v1/fail", b"a text of somebody")
    assert status == 500
    assert answer == {
        "error": f"Internal error; the server's log tells more under request id {headers['x-request-id']}"
    }
    (line,) = [line for line in server.lines() if line["level"] == "error" and line["error"] == "ValueError"][-1:]
    assert line["request_id"] == headers["x-request-id"]
    assert "in __call__" in line["stack"]
    assert "somebody" not in server.log.getvalue()


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(server: Running):
    answer = read_all(server.raw(b"GET /v1/half HTTP/1.1\r\nhost: a\r\n\r\n"))
    assert b"content-length: 10" in answer
    assert answer.endswith(b"12345")


def test_requests_beyond_the_limit_are_told_to_come_back_and_probes_are_not():
    with running(max_concurrent_requests=2) as server:
        held = [threading.Thread(target=server.ask, args=("GET", "/v1/hold")) for _ in range(2)]
        for thread in held:
            thread.start()
            assert server.app.held.acquire(timeout=PATIENCE)
        status, answer, headers = server.ask("GET", "/v1/x")
        assert (status, headers["retry-after"]) == (503, "1")
        assert answer == {"error": "The server is answering 2 requests already; try again"}
        assert server.ask("GET", "/healthz/live")[0] == 200
        server.app.let_go.set()
        for thread in held:
            thread.join()
        assert server.ask("GET", "/v1/x")[0] == 200


def test_slow_senders_keep_nobody_else_out():
    with running(max_concurrent_requests=1, body_timeout_seconds=PATIENCE) as server:
        head = b"POST /v1/slow HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n"
        slow = [server.raw(head) for _ in range(10)]
        assert server.ask("POST", "/v1/x", b"12345")[0] == 200
        slow[0].sendall(b"0123456789")
        assert slow[0].recv(12) == b"HTTP/1.1 200"
        for connection in slow:
            connection.close()


def test_large_bodies_share_a_limit_of_memory_that_short_ones_pass():
    with running(max_body_bytes=1_000_000, max_buffered_bytes=1_000_000, body_timeout_seconds=PATIENCE) as server:
        head = b"POST /v1/large HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n"
        with server.raw(head + b"x" * 800_000) as first:
            time.sleep(0.2)  # until those bytes have been read
            status, answer, headers = server.ask("POST", "/v1/large", b"x" * 900_000)
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert "as many large requests as it has memory for" in answer["error"]
            assert server.ask("POST", "/v1/x", b"12345")[0] == 200
            first.sendall(b"x" * 100_000)
            assert first.recv(12) == b"HTTP/1.1 200"
        assert server.ask("POST", "/v1/large", b"x" * 900_000)[0] == 200


def test_memory_that_could_never_hold_one_body_is_a_mistake():
    with pytest.raises(RequestError, match="max_buffered_bytes is 10: no request of max_body_bytes, 11, could"):
        FrontOptions(max_body_bytes=11, max_buffered_bytes=10)


@pytest.mark.parametrize(
    "path", ["/v1/models/m", "/V1/models/m", "/page/models", "/monitoring/prometheus/metrics", "/x"]
)
def test_nothing_but_the_page_and_the_probes_is_open_without_the_token(guarded: Running, path: str):
    status, answer, headers = guarded.ask("GET", path)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert answer == {"error": "A token is needed: Authorization: Bearer <token>"}
    assert guarded.ask("GET", path, Authorization="Bearer wrong")[0] == 401
    assert guarded.ask("GET", path, Authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/healthz/live", "/healthz/ready"])
def test_the_page_and_the_probes_are(guarded: Running, path: str):
    assert guarded.ask("GET", path)[0] == 200


@pytest.mark.parametrize(
    "path", ["/page/page%2ejs", "//", "/page/../v1/models", "/%2e", "/healthz", "/page/models/page.js"]
)
def test_no_spelling_of_a_path_goes_round_the_token(guarded: Running, path: str):
    assert guarded.ask("GET", path)[0] == 401


def test_a_body_without_a_token_is_not_kept(guarded: Running):
    assert guarded.ask("POST", "/v1/models/m:predict", b"x" * 100_000)[0] == 401


def test_a_preflight_passes_without_the_token_and_names_what_may_be_sent(guarded: Running):
    status, _, headers = guarded.ask(
        *("OPTIONS", "/v1/models/m:predict"), Origin="https://a.example", Access_Control_Request_Method="POST"
    )
    assert status == 200
    assert headers["access-control-allow-origin"] == "*"
    assert {"GET", "POST"} <= set(headers["access-control-allow-methods"].split(", "))
    assert {"Content-Type", "Authorization"} <= set(headers["access-control-allow-headers"].split(", "))


def test_with_cors_a_page_elsewhere_may_read_every_answer(guarded: Running):
    for authorization in ("", f"Bearer {TOKEN}"):
        _, _, headers = guarded.ask("GET", "/v1/x", Authorization=authorization)
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-expose-headers"] == "X-Request-Id"


def test_without_cors_there_is_none_of_it(server: Running):
    status, answer, headers = server.ask("OPTIONS", "/v1/models/m:predict")
    assert (status, answer["path"]) == (200, "/v1/models/m:predict")  # the application's to answer
    assert not [name for name in headers if name.startswith("access-control")]


def test_while_it_drains_requests_are_answered_and_told_to_connect_elsewhere_next():
    with running() as server, contextlib.closing(http.client.HTTPConnection(*server.address)) as connection:
        connection.request("GET", "/v1/x")
        assert connection.getresponse().read()
        held: list[tuple[int, Any, dict[str, str]]] = []
        waiting = threading.Thread(target=lambda: held.append(server.ask("GET", "/v1/hold")))
        waiting.start()
        assert server.app.held.acquire(timeout=PATIENCE)
        server.front.begin_drain()
        connection.request("GET", "/v1/x")
        response = connection.getresponse()
        assert (response.status, response.getheader("connection")) == (200, "close")
        server.server.should_exit = True
        time.sleep(0.3)  # the server closes what is idle, and waits for the rest
        server.app.let_go.set()
        waiting.join()
        assert held[0][0] == 200


def test_a_request_that_outlasts_the_drain_is_told_so():
    with running() as server:
        server.server.config.timeout_graceful_shutdown = 1
        held: list[tuple[int, Any, dict[str, str]]] = []
        waiting = threading.Thread(target=lambda: held.append(server.ask("GET", "/v1/hold")))
        waiting.start()
        assert server.app.held.acquire(timeout=PATIENCE)
        server.front.begin_drain()
        server.server.should_exit = True
        waiting.join()
    status, answer, headers = held[0]
    assert (status, answer, headers["retry-after"]) == (503, {"error": "The server is shutting down"}, "1")
