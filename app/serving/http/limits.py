"""Reading a request's body within limits of size, time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = tuple[tuple[bytes, bytes], ...]

MAX_BODY_BYTES = 100 * 1024 * 1024
# How long a client whose body was refused may go on sending it before the connection is cut, in seconds.
LINGER_SECONDS = 2.0

CLOSE: Headers = ((b"connection", b"close"),)
RETRY: Headers = ((b"retry-after", b"1"),)


class RefusedError(Exception):
    """A request that is answered with an error before the application sees it."""

    def __init__(self, status: int, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class ClientLeftError(Exception):
    """The client closed the connection before its request was whole."""


@dataclass(slots=True)
class Body:
    """A whole body as the application's `receive`; `held` bytes count against the memory limit until it is released."""

    receive: Receive
    size: int = 0  # bytes
    held: int = 0  # bytes


class BodyReader:
    """Reads whole bodies, so that the application, and the threads it works in, never wait for a slow client.

    `max_buffered_bytes` bounds what all bodies together may take that did not come in one piece with their head;
    beyond it further ones get 503, while short requests still pass.
    """

    def __init__(self, max_body_bytes: int, max_buffered_bytes: int, timeout_seconds: float) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_buffered_bytes = max_buffered_bytes
        self._timeout_seconds = timeout_seconds
        self._buffered = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive, body: Body) -> None:
        """Read what belongs to the request with these headers into `body`.

        Raises `RefusedError` (413 too large, 408 too slow, 503 no memory for it now) or `ClientLeftError`.
        """
        self._check_declared(headers)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                message = await _next(receive)
                if message.get("more_body"):
                    content = await self._gather(message["body"], receive, body)
                    message = {"type": "http.request", "body": content, "more_body": False}
        except TimeoutError:
            raise RefusedError(
                408, f"The request body did not arrive within {self._timeout_seconds:g} s", CLOSE
            ) from None
        body.size = len(message["body"])
        self._check_size(body.size)
        body.receive = _replay(message, receive)

    def release(self, body: Body) -> None:
        """Give back what the body held, once its request is answered."""
        self._buffered -= body.held
        body.held = 0

    def _check_declared(self, headers: Mapping[bytes, bytes]) -> None:
        declared = headers.get(b"content-length")
        if declared is None:
            return
        if not declared.isdigit() or len(declared) > 20:
            raise RefusedError(400, "Content-Length is not a number of bytes", CLOSE)
        self._check_size(int(declared))

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise RefusedError(413, f"The request body is larger than {self._max_body_bytes} bytes", CLOSE)

    async def _gather(self, first: bytes, receive: Receive, body: Body) -> bytes:
        chunks: list[bytes] = []
        chunk, more = first, True
        while True:
            chunks.append(chunk)
            self._hold(len(chunk), body)
            if not more:
                return b"".join(chunks)
            message = await _next(receive)
            chunk, more = message["body"], message.get("more_body", False)

    def _hold(self, size: int, body: Body) -> None:
        self._buffered += size
        body.held += size
        self._check_size(body.held)
        if self._buffered > self._max_buffered_bytes:
            message = "The server is reading as many large requests as it has memory for; try again"
            raise RefusedError(503, message, CLOSE + RETRY)


async def discard(receive: Receive) -> None:
    """Read what the client still sends, for a while.

    A connection that is closed while data waits in it is reset, and the client then loses the answer that says
    why: many read it only after they have sent everything.
    """
    with contextlib.suppress(TimeoutError, ClientLeftError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await _next(receive)).get("more_body"):
                continue


def error_body(message: str) -> bytes:
    """An error in the contract's form."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")


async def _next(receive: Receive) -> Message:
    message = await receive()
    if message["type"] != "http.request":
        raise ClientLeftError
    return message


def _replay(message: Message, receive: Receive) -> Receive:
    """The body once, then whatever the connection has to say, which is that the client left."""
    waiting: list[Message] = [message]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
