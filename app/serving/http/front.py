"""What every request passes before the application sees it: id, log, token, CORS, limits, and the way out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import RequestError
from app.serving.http.access import Access
from app.serving.http.cors import ANSWER_HEADERS, PREFLIGHT_HEADERS, is_preflight
from app.serving.http.limits import (
    CLOSE,
    MAX_BODY_BYTES,
    RETRY,
    Body,
    BodyReader,
    ClientLeftError,
    Headers,
    Message,
    Receive,
    RefusedError,
    discard,
    error_body,
)
from app.serving.http.request_log import CLIENT_LEFT, log_failure, log_request, request_id

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# A probe has no token, and is answered however much there is to do: else a busy server would be ended as a dead one.
_PROBES = b"/healthz/"
_JSON: Headers = ((b"content-type", b"application/json"),)
_WWW_AUTHENTICATE: Headers = ((b"www-authenticate", b"Bearer"),)


@dataclass(frozen=True)
class FrontOptions:
    """Limits and switches; sizes in bytes, times in seconds.

    `open_paths` need no token, nor does any path under /healthz/. They are held against the path as it was sent, so
    that no spelling of another path passes for one of them.
    """

    access: Access = field(default_factory=Access)
    open_paths: frozenset[str] = frozenset()
    max_body_bytes: int = MAX_BODY_BYTES
    max_buffered_bytes: int = 4 * MAX_BODY_BYTES  # all bodies together that did not come in one piece
    body_timeout_seconds: float = 30.0
    max_concurrent_requests: int = 512
    access_log: bool = False
    cors: bool = False

    def __post_init__(self) -> None:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise RequestError(
                f"max_buffered_bytes is {self.max_buffered_bytes}: no request of max_body_bytes, {self.max_body_bytes},"
                " could ever be read; it takes at least as many"
            )


class Front:
    """An ASGI application around another one.

    It reads the whole body first, so what is inside gets it in one message and only ever waits for itself; the
    request's id is `scope["state"]["request_id"]` there. Errors of the front have the contract's form.
    """

    def __init__(self, inner: Application, options: FrontOptions | None = None) -> None:
        self._inner = inner
        self._options = options = options or FrontOptions()
        self._bodies = BodyReader(options.max_body_bytes, options.max_buffered_bytes, options.body_timeout_seconds)
        self._common: Headers = ANSWER_HEADERS if options.cors else ()
        self._open_paths = frozenset(path.encode("ascii") for path in options.open_paths)
        self._answering = 0
        self._is_draining = False

    def begin_drain(self) -> None:
        """Tell every client with its next answer to connect anew, elsewhere.

        Requests that still come in on kept connections are answered and not refused: the models are loaded until
        the end, and a client could not tell whether a refused one may be sent again. Readiness is what turns new
        clients away.
        """
        self._is_draining = True
        self._common = (*self._common, *CLOSE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever goes wrong inside."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        name = request_id(headers.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = name.decode("ascii")
        answer = _Answer(send, ((b"x-request-id", name), *self._common))
        body = Body(receive)
        try:
            await self._pass(scope, headers, body, answer)
        except RefusedError as refusal:
            await answer.refuse(refusal, receive)
        except ClientLeftError:
            answer.status = CLIENT_LEFT
        except asyncio.CancelledError:
            if not self._is_draining:
                raise
            await answer.give_up()
        except Exception as error:
            log_failure(name, error)
            await answer.fail(name)
        finally:
            self._bodies.release(body)
            if self._options.access_log:
                _log(scope, name, started, answer, body)

    async def _pass(self, scope: Scope, headers: Mapping[bytes, bytes], body: Body, answer: _Answer) -> None:
        """Hand the request on if it may pass; raises `RefusedError` or `ClientLeftError`."""
        path = scope["raw_path"]
        if self._options.cors and is_preflight(scope["method"], path):
            await answer.write(200, b"", PREFLIGHT_HEADERS)
            return
        if not self._may_pass(path, headers):
            raise RefusedError(401, "A token is needed: Authorization: Bearer <token>", _WWW_AUTHENTICATE)
        if b"content-length" in headers or b"transfer-encoding" in headers:
            await self._bodies.read(headers, body.receive, body)
        if path.startswith(_PROBES):
            await self._inner(scope, body.receive, answer.send)
            return
        if self._answering >= self._options.max_concurrent_requests:
            raise RefusedError(503, f"The server is answering {self._answering} requests already; try again", RETRY)
        self._answering += 1
        try:
            await self._inner(scope, body.receive, answer.send)
        finally:
            self._answering -= 1

    def _may_pass(self, path: bytes, headers: Mapping[bytes, bytes]) -> bool:
        access = self._options.access
        if access.is_open or path in self._open_paths or path.startswith(_PROBES):
            return True
        given = headers.get(b"authorization")
        return access.allows(None if given is None else given.decode("latin-1"))


class _Answer:
    """The way back to the client: adds headers, remembers what was sent."""

    __slots__ = ("_headers", "_send", "size", "status")

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = send
        self._headers = headers
        self.status: int | None = None
        self.size = 0

    def send(self, message: Message) -> Awaitable[None]:
        """The application's `send`."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        else:
            self.size += len(message.get("body", b""))
        return self._send(message)

    async def write(self, status: int, content: bytes, headers: Headers, *, is_last: bool = True) -> None:
        """A whole answer; with `is_last` off the server is not told yet that it may close the connection."""
        length = (b"content-length", b"%d" % len(content))
        await self.send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
        await self.send({"type": "http.response.body", "body": content, "more_body": not is_last})

    async def refuse(self, refusal: RefusedError, receive: Receive) -> None:
        """Answer with an error; where the connection is closed for it, let the client read that first."""
        is_closing = CLOSE[0] in refusal.headers
        await self.write(refusal.status, error_body(refusal.message), refusal.headers + _JSON, is_last=not is_closing)
        if is_closing:
            await discard(receive)
            await self.send({"type": "http.response.body", "body": b""})

    async def fail(self, name: bytes) -> None:
        """Say that the server is at fault, if nothing was said yet.

        If something was, the answer stays unfinished and the server closes the connection: that is how a client
        learns that it is not whole.
        """
        if self.status is None:
            text = f"Internal error; the server's log tells more under request id {name.decode('ascii')}"
            await self.write(500, error_body(text), _JSON)

    async def give_up(self) -> None:
        """Say that the server stops and will not wait any longer for the application's answer."""
        if self.status is None:
            await self.write(503, error_body("The server is shutting down"), _JSON + RETRY)


def _log(scope: Scope, name: bytes, started: float, answer: _Answer, body: Body) -> None:
    log_request(
        started=started,
        request=name,
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        status=CLIENT_LEFT if answer.status is None else answer.status,
        request_bytes=body.size,
        response_bytes=answer.size,
    )
