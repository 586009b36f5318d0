"""What a connection may do before and after a request: heads, requests ahead, answers that nobody takes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from front_server import (
    SHORT,
    Running,
    drip,
    read_all,
    running,
    running_with_small_limits,
    status_and_error,
    wait_until,
)

from app.serving.http.connections import ConnectionLimits, allow_open_files


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running_with_small_limits() as server:
        yield server


def test_a_wish_for_another_protocol_costs_no_body(server: Running):
    """What Java's HttpClient and `curl --http2` send at first."""
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    assert server.ask("POST", "/v1/x", b"hello\r\n\r\nUpgrade: x", **upgrade)[1]["size"] == 19


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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-days", "2", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.with_suffix(".crt").read_text() + path.read_text())
    return path


def test_the_limits_hold_over_tls_too(certificate: Path):
    limits = ConnectionLimits(head_timeout_seconds=SHORT, write_timeout_seconds=SHORT)
    client = ssl.create_default_context(cafile=str(certificate))
    with running(limits, certificate=certificate, body_timeout_seconds=SHORT) as server:

        def connect(data: bytes) -> socket.socket:
            connection = client.wrap_socket(server.raw(), server_hostname="localhost")
            connection.sendall(data)
            return connection

        assert b"HTTP/1.1 200" in read_all(connect(b"GET /v1/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
        assert status_and_error(read_all(connect(b"GET /v1/x HTTP/1.1\r\n")))[0] == 408
        with connect(b"GET /v1/large?50000000 HTTP/1.1\r\nhost: a\r\n\r\n"):
            wait_until(lambda: "/v1/large" in server.app.seen)
            wait_until(lambda: not server.server.server_state.connections)


def test_a_plain_request_to_a_tls_port_harms_nobody(certificate: Path):
    with running(certificate=certificate) as server:
        read_all(server.raw(b"GET /v1/x HTTP/1.1\r\nhost: a\r\n\r\n"))
        client = ssl.create_default_context(cafile=str(certificate))
        with client.wrap_socket(server.raw(), server_hostname="localhost") as connection:
            connection.sendall(b"GET /v1/x HTTP/1.1\r\nhost: a\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
