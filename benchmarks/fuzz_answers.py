"""Sends generated requests on sockets of its own, holds each answer against the contract, and counts."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fuzz_requests import Wire

PATIENCE = 60  # seconds; an answer that takes longer counts as none
# How long a damaged request is given to be answered: half of one is waited for by the server, rightly.
GLIMPSE = 0.03
# Answers from 500 on that are documented, and counted by name.
DOCUMENTED = {501: "not implemented", 503: "too much at once", 504: "out of time"}
RESULT_KEYS = ({"predictions"}, {"outputs"}, {"results"}, {"model_version_status"}, {"model_spec", "metadata"})


class BadAnswerError(AssertionError):
    """An answer that should not be."""


@dataclass
class Tally:
    """What became of the requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0  # damaged HTTP that the server closed on, or still waited for the rest of

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self.statuses.total() + self.unanswered

    def by_class(self) -> dict[str, int]:
        """Answers by status class, the documented ones from 500 on apart."""
        classes: Counter[str] = Counter()
        for status, number in self.statuses.items():
            name = f"{status} {DOCUMENTED[status]}" if status in DOCUMENTED else f"{status // 100}xx"
            classes[name] += number
        return dict(sorted(classes.items())) | ({"no answer": self.unanswered} if self.unanswered else {})

    def failures(self) -> int:
        """Answers from 500 on that no page documents."""
        return sum(number for status, number in self.statuses.items() if status >= 500 and status not in DOCUMENTED)


class Asker:
    """One kept connection to a server, made anew when the server closes it."""

    def __init__(self, host: str, port: int, tally: Tally) -> None:
        self.address = (host, port)
        self._socket: socket.socket | None = None
        self._tally = tally

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, wire: Wire) -> None:
        """Send a request and check its answer; raises `BadAnswerError`."""
        try:
            response, content = self._exchange(wire)
        except (OSError, http.client.HTTPException) as error:
            raise BadAnswerError(f"no answer: {type(error).__name__}: {error}") from error
        self._tally.statuses[response.status] += 1
        check(wire, response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def _exchange(self, wire: Wire) -> tuple[http.client.HTTPResponse, bytes]:
        """Send and read; once more if the server closed the kept connection before it saw this request."""
        is_fresh = self._socket is None
        try:
            return self._attempt(wire)
        except (ConnectionError, http.client.RemoteDisconnected):
            self.close()
            if is_fresh:
                raise
            return self._attempt(wire)

    def _attempt(self, wire: Wire) -> tuple[http.client.HTTPResponse, bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(self.address, timeout=PATIENCE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it closed
            self._socket.sendall(wire.data())
        response = http.client.HTTPResponse(self._socket, method=wire.method)
        response.begin()
        content = response.read()
        if response.will_close:
            self.close()
        return response, content

    def glimpse(self, data: bytes) -> None:
        """Send what is hardly HTTP on a connection of its own; whatever comes back must not be the server's fault."""
        with socket.create_connection(self.address, timeout=PATIENCE) as connection:
            received = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection.sendall(data)
                connection.settimeout(GLIMPSE)
                while chunk := connection.recv(65536):
                    received += chunk
        if not received.startswith(b"HTTP/1.1 "):
            self._tally.unanswered += 1
            if received:
                raise BadAnswerError(f"an answer that is no HTTP: {received[:100]!r}")
            return
        status = int(received[9:12])
        self._tally.statuses[status] += 1
        if status >= 500 and status not in DOCUMENTED:
            raise BadAnswerError(f"{status}: {received[:300]!r}")


def check(wire: Wire, status: int, headers: dict[str, str], content: bytes) -> None:
    """Raise `BadAnswerError` unless the answer is one of the contract's."""
    if status >= 500 and status not in DOCUMENTED:
        raise BadAnswerError(f"{status}: {content[:300]!r}")
    if "x-request-id" not in headers:
        raise BadAnswerError(f"{status} without a request id")
    if wire.method == "HEAD" or not wire.target.lower().startswith(b"/v1/"):
        return
    if headers.get("content-type") != "application/json":
        raise BadAnswerError(f"{status} of type {headers.get('content-type')}")
    body = _read(content)
    if status != 200 and not (body.keys() == {"error"} and isinstance(body["error"], str)):
        raise BadAnswerError(f"{status} with {content[:300]!r}")
    if status == 200 and set(body) not in RESULT_KEYS:
        raise BadAnswerError(f"200 with {content[:300]!r}")


def _read(content: bytes) -> dict[str, Any]:
    # Bytes that are no UTF-8 pass from a text into an echo of it; NaN and Infinity are the contract's.
    try:
        body = json.loads(content.decode("utf-8", "surrogateescape"), strict=False)
    except ValueError as error:
        raise BadAnswerError(f"no JSON ({error}): {content[:300]!r}") from error
    if not isinstance(body, dict):
        raise BadAnswerError(f"no object: {content[:300]!r}")
    return body


def resident_bytes(pid: int) -> int:
    """The memory that a process has in use, as the kernel counts it."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 (no file)
        return int(file.read().split()[1]) * 4096


def settled_bytes(pid: int) -> int:
    """The same once nothing is under way any more."""
    time.sleep(1.0)
    return resident_bytes(pid)
