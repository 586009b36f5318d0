"""TensorFlow Serving's REST API: its routes, its answers and its errors, over HTTP."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.serving.http.json_text import PASS_BYTES, parse_object, pretty
from app.serving.http.tensors import read_inputs, write_outputs
from app.serving.repository import ModelSpec
from app.serving.service import find_signature, predict
from app.serving.signatures import DEFAULT_SIGNATURE
from app.serving.status import Code, ServingError, invalid
from app.serving.versions import ServedModel, VersionStatus

if TYPE_CHECKING:
    from app.serving.servable import Servable

# TensorFlow Serving unpacks at most 100 MB. A body that came unpacked has the same limit here.
MAX_BODY_BYTES = 100 * 1024 * 1024

_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_ASK = re.compile(rf"/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<verb>.*)", re.ASCII | re.IGNORECASE)
_LOOK = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?:/(?P<part>metadata))?", re.ASCII | re.IGNORECASE)


def make_app(models: Sequence[ServedModel], *, max_body_bytes: int = MAX_BODY_BYTES) -> FastAPI:
    """An ASGI application that answers for the given models."""
    app = FastAPI(title="Valence", openapi_url=None)  # the contract's paths are no OpenAPI routes
    # Every path and method has an answer of the contract's own, errors included: none is the router's.
    app.mount("/", RestApi(_ServedModels(models), max_body_bytes))
    return app


class _ServedModels:
    """Models by name, each with one version loaded. Every failure is a `ServingError`."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.name: model for model in models}

    def servable(self, spec: ModelSpec) -> Servable:
        """The loaded version that a request is for."""
        if spec.label is not None:
            raise invalid(f"Unrecognized servable version label: {spec.label}")
        model = self._models.get(spec.name)
        if model is None:
            wanted = f"Latest({spec.name})" if spec.version is None else f"Specific({spec.name}, {spec.version})"
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
        return model.servable(spec.version)

    def statuses(self, spec: ModelSpec) -> list[VersionStatus]:
        """The versions of a model and their states, newest first; a label is ignored."""
        model = self._models.get(spec.name)
        if model is not None:
            return model.statuses(spec.version)
        if spec.version is None:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        raise ServingError(Code.NOT_FOUND, f"Could not find version {spec.version} of model {spec.name}")


class RestApi:
    """The ASGI side: reads the body, answers in a worker thread, turns failures into error bodies."""

    def __init__(self, service: _ServedModels, max_body_bytes: int) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request = Request(scope, receive)
        try:
            body = await self._read_body(request)
            # Reading the JSON and running the graph would hold up every other connection on the event loop.
            text = await run_in_threadpool(self._answer, request.method, _target(scope), body)
            content, status = text.encode("utf-8", PASS_BYTES), 200
        except ClientDisconnect:
            return  # nobody is there to answer
        except RecursionError:
            content, status = _error_body("The request is nested too deeply"), 400
        except _TooLargeError as error:
            content, status = _error_body(str(error)), 413
        except ServingError as error:
            content, status = _error_body(error.message), error.http_status
        await Response(content, status, media_type="application/json")(scope, receive, send)

    def _answer(self, method: str, target: str, body: bytes) -> str:
        if not target.lower().startswith("/v1/"):
            raise ServingError(Code.NOT_FOUND, f"Not found: {target}. The API is under /v1/models/")
        if method == "POST" and (match := _ASK.fullmatch(target)):
            if match["verb"] == "predict":
                return answer_predict(self._service, _spec(match), body)
            if match["verb"] in ("classify", "regress"):
                return answer_examples(self._service, _spec(match), body, match["verb"])
        if method == "GET" and (match := _LOOK.fullmatch(target)):
            if match["name"] is None:
                raise invalid("Missing model name in request.")
            if match["part"] == "metadata":
                return answer_metadata(self._service, _spec(match))
            return answer_status(self._service, _spec(match))
        raise invalid(f"Malformed request: {method} {target}")

    async def _read_body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body_bytes:
                raise _TooLargeError(self._max_body_bytes)
        if "gzip" in request.headers.get("content-encoding", "").lower():
            return await run_in_threadpool(_unpack, bytes(body), self._max_body_bytes)
        return bytes(body)


class _TooLargeError(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than {limit} bytes")


def _unpack(body: bytes, limit: int) -> bytes:
    """A gzip body, unpacked; a broken one counts as empty, as it does with TensorFlow Serving."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error:
        return b""
    if len(unpacked) > limit:
        raise _TooLargeError(limit)
    return unpacked if unpacker.eof else b""


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


def answer_predict(service: _ServedModels, spec: ModelSpec, body: bytes) -> str:
    """Predict, rows or columns, with whatever inputs and outputs the signature declares."""
    document = parse_object(body)
    signature_name = _signature_name(document)
    servable = service.servable(spec)
    signature = find_signature(servable, signature_name)
    inputs, rows = read_inputs(document, signature.inputs)
    return write_outputs(predict(servable, signature, inputs), rows=rows)


def answer_examples(service: _ServedModels, spec: ModelSpec, body: bytes, verb: str) -> str:
    """Classify and regress need a signature made for tf.Example records; one made to predict is refused."""
    document = parse_object(body)
    name = _signature_name(document) or DEFAULT_SIGNATURE
    signature = service.servable(spec).signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    kind = {"classify": "classification", "regress": "regression"}[verb]
    method_name = f"tensorflow/serving/{verb}"
    if signature.method_name != method_name:
        raise invalid(f"Expected {kind} signature method_name to be {method_name}. Was: {signature.method_name}")
    raise ServingError(Code.UNIMPLEMENTED, f"The embedded engine does not {verb}; use --engine tensorflow-serving")


def answer_status(service: _ServedModels, spec: ModelSpec) -> str:
    """The model's versions and their states."""
    versions = [
        {
            "version": str(status.version),
            "state": status.state,
            "status": {"error_code": status.code.name, "error_message": status.message},
        }
        for status in service.statuses(spec)
    ]
    return pretty({"model_version_status": versions})


def answer_metadata(service: _ServedModels, spec: ModelSpec) -> str:
    """The model's signatures."""
    servable = service.servable(spec)
    return pretty(
        {
            "model_spec": {"name": spec.name, "signature_name": "", "version": str(servable.version)},
            "metadata": {"signature_def": {"signature_def": servable.signature_def}},
        }
    )


def _signature_name(document: dict[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {pretty(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def _error_body(message: str) -> bytes:
    # A message may quote bytes of the request that are no UTF-8; its reader should not stumble over them.
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")
