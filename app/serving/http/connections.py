"""Connections within limits: uvicorn's protocol, which by itself waits for ever for the end of a request's head.

uvicorn 0.54 on httptools 0.9 limits neither the time nor the size of a head, nor the number of requests sent ahead,
nor how long an answer may wait to be taken: all this is before or after what an ASGI application sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import re
import resource
import sys
import termios
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.serving.http.limits import CLOSE, RETRY, Headers, error_body
from app.serving.http.request_log import request_id

# Connections beyond the limit that are told so; those beyond these too are cut without a word.
SPARE_CONNECTIONS = 64
# Files that the process needs besides its connections; those of gRPC are among them.
_OTHER_FILES = 1256
# Requests that a client may send ahead on one connection before the first is answered. Clients hardly ever do.
_MAX_PIPELINED = 64

_UPGRADE = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_NO_UPGRADE = b"\r\nignored"


@dataclass(frozen=True)
class ConnectionLimits:
    """Times in seconds, sizes in bytes."""

    max_connections: int = 1000
    head_timeout_seconds: float = 10.0  # until a request's last header, counted from connecting, or after keep-alive
    max_head_bytes: int = 64 * 1024  # one read (256 KiB at most) may bring more
    write_timeout_seconds: float = 30.0  # an answer of which the client takes nothing for so long


def guarded_protocol(limits: ConnectionLimits) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn's setting `http`."""
    return type("LimitedProtocol", (_GuardedProtocol,), {"limits": limits})


def allow_open_files(max_connections: int) -> int:
    """Raise this process's limit of open files so that many connections fit; returns the limit it has then.

    Many systems start a process with 1,024, and what accepts connections then fails without a word to the client.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + SPARE_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # some sandboxes forbid it; the connections then fail later
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class _GuardedProtocol(HttpToolsProtocol):
    """One connection. A timer of its own looks at it a few times per time limit, instead of one timer per request."""

    limits = ConnectionLimits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_bytes = 0  # received since the last byte of a body or the end of a request
        self._head_due = self.loop.time() + self.limits.head_timeout_seconds
        self._unwritten, self._unwritten_since = 0, 0.0
        self._application: Any = self.app
        surplus = len(self.connections) - self.limits.max_connections
        if surplus > SPARE_CONNECTIONS:
            transport.abort()
        elif surplus > 0:
            self.app = self._refuse_surplus
        self._interval = min(self.limits.head_timeout_seconds, self.limits.write_timeout_seconds) / 4
        self._timer = self.loop.call_later(self._interval, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_bytes == 0 and not self._is_in_body():
            data = _without_upgrade(data)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > self.limits.max_head_bytes:
            self._refuse(431, f"The request's head is larger than {self.limits.max_head_bytes} bytes")

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if len(self.pipeline) > _MAX_PIPELINED:
            self.transport.abort()
            raise ConnectionAbortedError("too many requests sent ahead")  # which stops the parser

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._head_due = self.loop.time() + self.timeout_keep_alive + self.limits.head_timeout_seconds
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _is_in_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete

    def _look(self) -> None:
        """End the connection if it is stuck, else look again later."""
        now = self.loop.time()
        if self._is_answer_stuck(now):
            self.transport.abort()
            return
        if now > self._head_due and (self.cycle is None or self.cycle.response_complete):
            self._end_wait()
        self._timer = self.loop.call_later(self._interval, self._look)

    def _is_answer_stuck(self, now: float) -> bool:
        unwritten = self.transport.get_write_buffer_size()
        if unwritten:
            unwritten += _unacknowledged(self.transport)
        if unwritten == 0 or unwritten != self._unwritten:
            self._unwritten, self._unwritten_since = unwritten, now
        return now - self._unwritten_since >= self.limits.write_timeout_seconds and unwritten > 0

    def _end_wait(self) -> None:
        if self._head_bytes:
            self._refuse(408, f"The request's head did not arrive within {self.limits.head_timeout_seconds:g} s")
        else:  # nothing was asked
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer with an error and close; within another answer only close."""
        if self.transport.is_closing():
            return
        is_answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not is_answering:
            self.transport.write(_answer(status, message))
        self.transport.close()

    async def _refuse_surplus(self, scope: Any, receive: Any, send: Any) -> None:
        """Ask to try again later; probes are answered, since a busy server is no dead one."""
        if scope["path"].startswith("/healthz/"):
            await self._application(scope, receive, send)
            return
        content = error_body(f"The server has {self.limits.max_connections} connections already; try again")
        headers = [*_headers(content), *RETRY]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the kernel holds for the client: it takes a megabyte at a time from us, with long waits between."""
    answer = bytearray(4)
    with contextlib.suppress(OSError, ValueError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, answer)
    return int.from_bytes(answer, sys.byteorder)


def _without_upgrade(data: bytes) -> bytes:
    """A request's first bytes, without the wish to change the protocol.

    We speak no other one, and a server may ignore the wish; but httptools drops the body of a request that has it,
    and Java's HttpClient and `curl --http2` put it on every first request.
    """
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    if _UPGRADE.search(head) is None:
        return data
    return _UPGRADE.sub(_NO_UPGRADE, head) + data[len(head) :]


def _headers(content: bytes) -> Headers:
    return (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"x-request-id", request_id(None)),
        *CLOSE,
    )


def _answer(status: int, message: str) -> bytes:
    content = error_body(message)
    lines = [name + b": " + value + b"\r\n" for name, value in _headers(content)]
    return b"".join([STATUS_LINE[status], *lines, b"\r\n", content])
