"""A small application behind the front, on a real server: what the tests of the front, connections and logs ask."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from app.serving.http.connections import ConnectionLimits, guarded_protocol
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
def running(
    limits: ConnectionLimits | None = None, *, certificate: Path | None = None, **options: Any
) -> Iterator[Running]:
    """The dummy behind a front, on uvicorn with httptools and uvloop, in a thread; `certificate` holds its key too."""
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
        ssl_certfile=certificate,
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


@contextlib.contextmanager
def running_with_small_limits() -> Iterator[Running]:
    """Limits that a test can wait for, the log on, no token."""
    limits = ConnectionLimits(head_timeout_seconds=SHORT, max_head_bytes=4096, write_timeout_seconds=SHORT)
    options = {"max_body_bytes": 100_000, "max_buffered_bytes": 400_000, "body_timeout_seconds": SHORT}
    with pytest.MonkeyPatch.context() as patch, running(limits, access_log=True, **options) as server:
        patch.setattr("app.serving.http.limits.LINGER_SECONDS", SHORT)
        yield server
