"""The front around a small application, on a real server: real sockets, with time limits short enough to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from app.errors import RequestError
from app.serving.http.access import Access
from app.serving.http.connections import ConnectionLimits, allow_open_files, guarded_protocol
from app.serving.http.front import Front, FrontOptions
from app.serving.http.request_log import JsonLines

TOKEN = "correct-horse-battery-staple"
SHORT = 0.3  # seconds
PATIENCE = 20  # seconds that a test waits for what should come at once


class Dummy:
    """Answers what it was asked as JSON; `/hold` waits until it is let go, `/fail` and `/half` break."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.held = threading.Semaphore(0)
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body, path = message["body"], scope["path"]
        self.seen.append(path)
        if path == "/v1/fail":
            raise ValueError(f"cannot read {body.decode()}")
        if path == "/v1/half":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"12345", "more_body": True})
            raise ValueError("half of an answer")
        if path == "/v1/hold":
            self.held.release()
            while not self.let_go.is_set():
                await asyncio.sleep(0.01)
        size = int(scope["query_string"] or 0)
        answer = {
            "path": path,
            "size": len(body),
            "id": scope["state"]["request_id"],
            "whole": not message["more_body"],
        }
        await _send_json(send, answer, size)


async def _send_json(send: Any, answer: dict[str, Any], padding: int) -> None:
    content = json.dumps(answer).encode() + b" " * padding
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@dataclass
class Running:
    """A server under test."""

    address: tuple[str, int]
    front: Front
    app: Dummy
    server: uvicorn.Server
    log: io.StringIO = field(default_factory=io.StringIO)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """One request on a connection of its own: status, JSON and headers (lower case) of the answer."""
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            content = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, json.loads(content) if content else None, found

    def raw(self, data: bytes = b"") -> socket.socket:
        """A connection on which `data` was sent."""
        connection = socket.create_connection(self.address, timeout=PATIENCE)
        connection.sendall(data)
        return connection

    def lines(self) -> list[dict[str, Any]]:
        """What was logged."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@contextlib.contextmanager
def running(limits: ConnectionLimits | None = None, **options: Any) -> Iterator[Running]:
    """The dummy behind a front, on uvicorn with httptools and uvloop, in a thread."""
    app = Dummy()
    front = Front(app, FrontOptions(**options))
    config = uvicorn.Config(
        front,
        http=guarded_protocol(limits or ConnectionLimits()),
        loop="uvloop",
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="error",
        timeout_keep_alive=1,
        timeout_graceful_shutdown=5,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    state = Running(listener.getsockname(), front, app, server)
    handler = logging.StreamHandler(state.log)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("app.serving.requests")
    logger.addHandler(handler)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield state
    finally:
        app.let_go.set()
        server.should_exit = True
        thread.join()
        logger.removeHandler(handler)


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset after the answer counts as closing."""
    received = bytearray()
    with connection, contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return bytes(received)


def status_and_error(answer: bytes) -> tuple[int, str]:
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"\r\nx-request-id: " in head
    assert b"\r\ncontent-type: application/json" in head
    assert b"\r\nconnection: close" in head
    body = json.loads(content)
    assert list(body) == ["error"]
    return int(head.split(b" ")[1]), body["error"]


@pytest.fixture(autouse=True, scope="module")
def _info_is_logged() -> Iterator[None]:
    logger = logging.getLogger("app.serving.requests")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """Small limits, no token."""
    limits = ConnectionLimits(head_timeout_seconds=SHORT, max_head_bytes=4096, write_timeout_seconds=SHORT)
    options = {"max_body_bytes": 100_000, "max_buffered_bytes": 400_000, "body_timeout_seconds": SHORT}
    with pytest.MonkeyPatch.context() as patch, running(limits, access_log=True, **options) as server:
        patch.setattr("app.serving.http.limits.LINGER_SECONDS", SHORT)
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    """With a token, and CORS."""
    with running(
        access=Access([TOKEN]), cors=True, access_log=True, open_paths=frozenset({"/", "/page/page.js"})
    ) as server:
        yield server


# --- what passes ---


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


def test_a_wish_for_another_protocol_costs_no_body(server: Running):
    """What Java's HttpClient and `curl --http2` send at first."""
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    assert server.ask("POST", "/v1/x", b"hello\r\n\r\nUpgrade: x", **upgrade)[1]["size"] == 19


def test_every_answer_has_a_request_id_the_clients_own_if_it_is_sane(server: Running):
    _, answer, headers = server.ask("GET", "/v1/x")
    assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])
    assert answer["id"] == headers["x-request-id"]
    for given in ("abc-123", "Root=1-67891233-abcdef012345678912345678", "a/b:c.d_e+f="):
        assert server.ask("GET", "/v1/x", X_Request_Id=given)[2]["x-request-id"] == given
    for given in ('"', "a b", "x" * 129, "<script>", "a;b", "{}"):
        assert re.fullmatch("[0-9a-f]{16}", server.ask("GET", "/v1/x", X_Request_Id=given)[2]["x-request-id"])


# --- what does not ---


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


@pytest.mark.parametrize("start", [b"GET /v1/x HTTP/1.1\r\nhost: a\r\n", b"G", b"\r\n"])
def test_half_a_head_does_not_hold_a_connection(server: Running, start: bytes):
    status, error = status_and_error(read_all(server.raw(start)))
    assert (status, error) == (408, f"The request's head did not arrive within {SHORT} s")


def test_a_head_that_drips_does_not_either(server: Running):
    with server.raw(b"GET /v1/x HTTP/1.1\r\nhost: a\r\n") as connection:
        assert b"408" in drip(connection, b"a: b\r\n")


def test_empty_lines_do_not_keep_an_idle_connection_open(server: Running):
    with server.raw(b"GET /v1/x HTTP/1.1\r\nhost: a\r\n\r\n") as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert b"408" in drip(connection, b"\r\n")


def drip(connection: socket.socket, data: bytes) -> bytes:
    """Send `data` again and again until the server has had enough; what it said."""
    connection.settimeout(0.02)
    received, deadline = bytearray(), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            connection.sendall(data)
            chunk = connection.recv(65536)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return bytes(received)
        if not chunk:
            return bytes(received)
        received += chunk
    raise AssertionError("the server never closed the connection")


def test_a_connection_without_a_word_is_closed_without_one(server: Running):
    assert read_all(server.raw()) == b""


def test_a_head_above_the_limit_is_refused(server: Running):
    start = b"GET /v1/x HTTP/1.1\r\nhost: a\r\n"
    for data in (start + b"x: " + b"y" * 600_000, b"GET /" + b"y" * 600_000, start + b"x: y\r\n" * 100_000):
        assert status_and_error(send_and_read(server, data)) == (431, "The request's head is larger than 4096 bytes")


def test_trailers_and_chunk_names_have_the_same_limit(server: Running):
    head = b"POST /v1/trailer HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    for data in (head + b"0\r\n" + b"a: b\r\n" * 100_000, head + b"3;" + b"x" * 600_000):
        answer = send_and_read(server, data)
        assert answer == b"" or status_and_error(answer)[0] == 431
    assert "/v1/trailer" not in server.app.seen


def send_and_read(server: Running, data: bytes) -> bytes:
    """What the server answers, also when it closes before it has taken everything."""
    connection = server.raw()
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(data)
    return read_all(connection)


def test_requests_sent_far_ahead_end_the_connection(server: Running):
    request = b"GET /v1/ahead HTTP/1.1\r\nhost: a\r\n\r\n"
    with server.raw(request * 20) as connection:
        received = b""
        while received.count(b"HTTP/1.1 200") < 20:
            received += connection.recv(65536)
    before = server.app.seen.count("/v1/ahead")
    assert before == 20
    assert send_and_read(server, request * 5_000).count(b"HTTP/1.1 200") < 100
    assert server.app.seen.count("/v1/ahead") < before + 100


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a port that has none
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET ?x HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_gets_an_error_of_the_contracts_form(server: Running, data: bytes):
    assert status_and_error(read_all(server.raw(data)))[0] == 400


def test_an_answer_that_the_client_does_not_take_is_given_up(server: Running):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with connection:
        connection.connect(server.address)
        connection.sendall(b"GET /v1/large?50000000 HTTP/1.1\r\nhost: a\r\n\r\n")
        wait_until(lambda: "/v1/large" in server.app.seen)
        wait_until(lambda: not server.server.server_state.connections)
    assert server.ask("GET", "/v1/x")[0] == 200


def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(server: Running):
    with server.raw(b"GET /v1/x?6000000 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n") as connection:
        size, slow_until = 0, time.monotonic() + 3 * SHORT
        while chunk := connection.recv(16384):
            size += len(chunk)
            if time.monotonic() < slow_until:
                time.sleep(0.02)
    assert size > 6_000_000


def test_clients_that_leave_at_any_point_leave_nothing_behind(server: Running):
    request = b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 30000\r\n\r\n" + b"x" * 30_000
    for size in (1, 20, 60, 70, 1_000, 29_999, len(request)):
        server.raw(request[:size]).close()
    wait_until(lambda: not server.server.server_state.connections and not server.server.server_state.tasks)
    assert server.ask("GET", "/v1/x")[0] == 200


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


# --- how many at once ---


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


def test_connections_beyond_the_limit_are_told_so_and_far_beyond_it_cut():
    with running(ConnectionLimits(max_connections=3)) as server:
        idle = [server.raw() for _ in range(3)]
        wait_until(lambda: len(server.server.server_state.connections) == 3)
        status, answer, headers = server.ask("GET", "/v1/x")
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert answer == {"error": "The server has 3 connections already; try again"}
        assert server.ask("GET", "/healthz/live")[0] == 200
        surplus = [server.raw() for _ in range(100)]
        time.sleep(0.2)
        assert len(server.server.server_state.connections) <= 3 + 64
        for connection in (*idle, *surplus):
            connection.close()
        wait_until(lambda: not server.server.server_state.connections)
        assert server.ask("GET", "/v1/x")[0] == 200


def test_the_process_may_open_as_many_files_as_connections_are_allowed():
    assert allow_open_files(100) >= 256


# --- token, CORS ---


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


# --- logs ---


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


# --- the way out ---


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
