"""TensorFlow Serving's REST API over HTTP: which path and method asks for what."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote

from app.serving.http.answers import answer_error, answer_examples, answer_metadata, answer_predict, answer_status
from app.serving.http.front import Scope, Send
from app.serving.http.json_text import PASS_BYTES
from app.serving.http.limits import Receive
from app.serving.repository import ModelSpec
from app.serving.service import PredictionService
from app.serving.status import Code, ServingError, invalid

_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_ASK = re.compile(rf"/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<verb>.*)", re.ASCII | re.IGNORECASE)
_LOOK = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?:/(?P<part>metadata))?", re.ASCII | re.IGNORECASE)
_API_NAMES = {
    "predict": "Predict",
    "classify": "Classify",
    "regress": "Regress",
    "metadata": "GetModelMetadata",
    "status": "GetModelStatus",
}


@dataclass(frozen=True)
class RestLimits:
    """How much one request may take. TensorFlow Serving unpacks at most 100 MB of a compressed body."""

    timeout_seconds: float = 30.0
    unpacked_bytes: int = 100 * 1024 * 1024
    rows: int = 10_000


@dataclass(frozen=True)
class _Question:
    """What a request asks: an API by its verb, of a model."""

    verb: str
    spec: ModelSpec


class UnpackedTooLargeError(Exception):
    """A compressed body that is larger than allowed: HTTP 413."""


class RestApi:
    """The contract's routes as a bare ASGI application; `threads` requests are worked on at the same time.

    No framework's router stands here: every path and method has an answer of the contract's own.
    """

    def __init__(self, service: PredictionService, limits: RestLimits, threads: int) -> None:
        self._service = service
        self._limits = limits
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="rest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        started = time.perf_counter()
        body = await _read_body(receive)
        if body is None:
            return  # the client is gone
        # What nobody expected goes on to the front, which answers 500; it is counted as such here.
        question, code = None, Code.INTERNAL
        self._service.metrics.in_progress(1)
        try:
            question = _question(scope["method"], _target(scope))
            content, code, status = await self._in_thread(question, body, _is_gzip(scope)), Code.OK, 200
        except ServingError as error:
            content, code, status = answer_error(error.message), error.code, error.http_status
        except UnpackedTooLargeError as error:
            content, code, status = answer_error(str(error)), Code.INVALID_ARGUMENT, 413
        except RecursionError:
            content, code, status = answer_error("The request is nested too deeply"), Code.INVALID_ARGUMENT, 400
        finally:
            self._service.metrics.in_progress(-1)
            if question is not None:
                self._count(question, code, time.perf_counter() - started)
        await send_json(send, status, content)

    def close(self) -> None:
        """End the worker threads, once the requests under way are answered."""
        self._threads.shutdown()

    async def _in_thread(self, question: _Question, body: bytes, gzip: bool) -> bytes:
        """Work in a thread: reading JSON and running a graph would hold up every other connection."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question, body, gzip)
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                return await work
        except TimeoutError:
            # The session cancels a run by the same time limit, in the same words; this is for one that still waits.
            raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification") from None

    def _answer(self, question: _Question, body: bytes, gzip: bool) -> bytes:
        service, verb, spec = self._service, question.verb, question.spec
        if verb == "status":
            return answer_status(service, spec).encode("utf-8", PASS_BYTES)
        if verb == "metadata":
            return answer_metadata(service, spec).encode("utf-8", PASS_BYTES)
        if gzip:
            body = _unpack(body, self._limits.unpacked_bytes)
        if verb == "predict":
            return answer_predict(service, spec, body, self._limits.rows).encode("utf-8", PASS_BYTES)
        return answer_examples(service, spec, body, verb, self._limits.rows).encode("utf-8", PASS_BYTES)

    def _count(self, question: _Question, code: Code, seconds: float) -> None:
        self._service.metrics.request(question.spec.name, _API_NAMES[question.verb], "REST", code, seconds)


async def send_json(send: Send, status: int, content: bytes) -> None:
    """Send a whole answer of JSON text."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _read_body(receive: Receive) -> bytes | None:
    """The body of a request; None when the client went away before it was whole."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _question(method: str, target: str) -> _Question:
    if method == "POST" and (match := _ASK.fullmatch(target)) and match["verb"] in ("predict", "classify", "regress"):
        return _Question(match["verb"], _spec(match))
    if method == "GET" and (match := _LOOK.fullmatch(target)):
        if match["name"] is None:
            raise invalid("Missing model name in request.")
        return _Question("metadata" if match["part"] else "status", _spec(match))
    raise invalid(f"Malformed request: {method} {target}")


def _target(scope: Scope) -> str:
    """The path as it was sent, still percent-encoded, with its query."""
    path, query = scope["raw_path"], scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _spec(match: re.Match[str]) -> ModelSpec:
    version = None if match["version"] is None else _version(match["version"])
    label = None if match["label"] is None else unquote(match["label"])
    return ModelSpec(unquote(match["name"]), version, label)


def _version(digits: str) -> int:
    # Python refuses to read thousands of digits; 19 without leading zeros is what 64 bits may need.
    if len(digits.lstrip("0")) > 19 or int(digits[-20:]) >= 2**63:
        raise invalid(f"Failed to convert version: {digits} to numeric.")
    return int(digits[-20:])


def _is_gzip(scope: Scope) -> bool:
    return any(name == b"content-encoding" and b"gzip" in value.lower() for name, value in scope["headers"])


def _unpack(body: bytes, limit: int) -> bytes:
    """A gzip body, unpacked; a broken one counts as empty, as it does with TensorFlow Serving."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error:
        return b""
    if len(unpacked) > limit:
        raise UnpackedTooLargeError(f"The request body is larger than {limit} bytes once it is unpacked")
    return unpacked if unpacker.eof else b""
