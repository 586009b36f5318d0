"""TensorFlow Serving's gRPC services on grpcio: connections, TLS, tokens, deadlines, and how much is done at once.

The services take bytes and not the generated servicers' messages, so that a call is refused before its message is
received, and a message that cannot be parsed is the client's mistake and not the server's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import grpc
from google.protobuf.message import DecodeError, Message

from app.errors import RequestError
from app.serving.grpc_answers import APIS, GrpcApi
from app.serving.service import PredictionService
from app.serving.status import Code, ServingError, invalid
from app.serving.text_protos import SslConfig

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000
MAX_MESSAGE_BYTES = 100 * 1024 * 1024
# gRPC takes 8 KB of trailing metadata: an error that quotes more of a request would not reach the client at all.
_MAX_ERROR_BYTES = 2048
_STATUS = {status.value[0]: status for status in grpc.StatusCode}
_TIMED_OUT = "Timed out waiting for notification"


class GrpcServer:
    """PredictionService and ModelService at `address` (`host:port`; port 0 takes a free one, see `port`).

    `allows` judges the `authorization` of a call's metadata (None: no token is asked for). `workers` requests are
    worked on at the same time, `max_concurrent` may be under way, waiting ones included; further ones get
    RESOURCE_EXHAUSTED, as does a message above `max_message_bytes`. A client that begins a call has
    `message_seconds` to send its message. Raises `RequestError` when the address cannot be had or `ssl` holds no
    key and certificate that go together.
    """

    def __init__(
        self,
        service: PredictionService,
        address: str,
        *,
        ssl: SslConfig | None = None,
        allows: Callable[[str | None], bool] | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_rows: int = 10_000,
        max_concurrent: int = 256,
        workers: int = 8,
        message_seconds: float = 30.0,
    ) -> None:
        self._receiving = _Receiving(message_seconds)
        calls = _Calls(service, allows, self._receiving, max_rows, workers)
        self._server = grpc.server(
            # A call has a thread from its first byte on. There is one for each: those who wait keep nobody waiting.
            ThreadPoolExecutor(max_concurrent, thread_name_prefix="grpc"),
            handlers=[calls],
            maximum_concurrent_rpcs=max_concurrent,
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),  # no limit: an answer is as long as the request asks for
                # A connection costs an open file, and asks for no token until it calls.
                ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
                ("grpc.max_connection_idle_ms", 300_000),
                ("grpc.so_reuseport", 0),  # two servers on one port would each get some of the requests
            ],
        )
        self.port = _listen(self._server, address, ssl)

    def start(self) -> None:
        """Take requests. Until then connections wait."""
        self._receiving.start()
        self._server.start()

    def stop(self, grace_seconds: float) -> None:
        """Take no more requests, and wait for those under way; what takes longer than that is cancelled."""
        self._server.stop(grace_seconds).wait()
        self._receiving.stop()


class _Calls(grpc.GenericRpcHandler):
    """What happens to each call: let in or not, received, given a worker's place, answered, counted."""

    def __init__(
        self,
        service: PredictionService,
        allows: Callable[[str | None], bool] | None,
        receiving: _Receiving,
        max_rows: int,
        workers: int,
    ) -> None:
        self._service = service
        self._allows = allows
        self._receiving = receiving
        self._max_rows = max_rows
        self._places = threading.BoundedSemaphore(workers)
        self._handlers = {
            method: grpc.stream_unary_rpc_method_handler(partial(self._call, api)) for method, api in APIS.items()
        }
        self._refusal = grpc.stream_unary_rpc_method_handler(_refuse)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Find what answers a method; None, for one that there is not, makes it UNIMPLEMENTED."""
        if self._allows is not None:
            given = [value for key, value in handler_call_details.invocation_metadata if key == "authorization"]
            if not self._allows(given[0] if len(given) == 1 else None):
                return self._refusal
        return self._handlers.get(handler_call_details.method)

    def _call(self, api: GrpcApi, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        started, metrics = time.perf_counter(), self._service.metrics
        request: Message | None = None
        metrics.in_progress(1)
        try:
            request = _parse(api, self._receiving.message(messages, context))
            with self._place(context):
                answer: bytes = api.answer(self._service, request, self._max_rows).SerializeToString()
            _check_time(context)
            code, reason = Code.OK, ""
        except ServingError as error:
            code, reason = error.code, error.message
        except Exception as error:  # whatever a model of strangers may do; its message may quote a user's text
            logger.error("%s failed: %s", api.name, type(error).__name__)
            code, reason = Code.INTERNAL, "The server failed to answer"
        finally:
            metrics.in_progress(-1)
        if request is not None:
            metrics.request(api.model(request), api.name, "GRPC", code, time.perf_counter() - started)
        if code is not Code.OK:
            context.abort(_STATUS[code], _short(reason))
        return answer

    @contextmanager
    def _place(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Wait for one of the workers' places, for as long as the client does."""
        if not self._places.acquire(timeout=_seconds_left(context)):
            raise ServingError(Code.DEADLINE_EXCEEDED, _TIMED_OUT)
        try:
            _check_time(context)
            yield
        finally:
            self._places.release()


class _Receiving:
    """Calls whose message has not come yet: a client that takes too long over it is cut off.

    Each of them holds a thread, and gRPC has no time limit for a message that is on its way.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # All wait equally long, so the first that came is the first whose time is up.
        self._since: dict[grpc.ServicerContext, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="grpc-receiving", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def message(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The one message of a call. Raises `ServingError` when none comes."""
        self._since[context] = time.monotonic()
        try:
            return next(messages)
        except StopIteration:
            raise invalid("The call has no request message") from None
        except grpc.RpcError:  # cut off, given up by the client, or longer than allowed
            raise ServingError(Code.CANCELLED, "The request message did not come") from None
        finally:
            del self._since[context]

    def _watch(self) -> None:
        while not self._stopping.wait(min(1.0, self._seconds / 4)):
            now = time.monotonic()
            for context, since in list(self._since.items()):
                if now - since < self._seconds:
                    break
                context.cancel()


def _parse(api: GrpcApi, message: bytes) -> Message:
    try:
        return api.request.FromString(message)
    except DecodeError as error:
        raise invalid(f"The message is no {api.request.DESCRIPTOR.name}") from error


def _seconds_left(context: grpc.ServicerContext) -> float:
    seconds = context.time_remaining()
    return threading.TIMEOUT_MAX if seconds is None else min(seconds, threading.TIMEOUT_MAX)


def _check_time(context: grpc.ServicerContext) -> None:
    """Raise `ServingError` when nobody waits for the answer any more."""
    if _seconds_left(context) <= 0:
        raise ServingError(Code.DEADLINE_EXCEEDED, _TIMED_OUT)
    if not context.is_active():
        raise ServingError(Code.CANCELLED, "The client has cancelled the request")


def _refuse(_: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "A bearer token is needed in the metadata 'authorization'")
    raise AssertionError("abort raises")


def _short(reason: str) -> str:
    encoded = reason.encode("utf-8", "replace")
    if len(encoded) <= _MAX_ERROR_BYTES:
        return encoded.decode()
    return encoded[:_MAX_ERROR_BYTES].decode("utf-8", "ignore") + "..."


def _listen(server: grpc.Server, address: str, ssl: SslConfig | None) -> int:
    try:
        if ssl is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(ssl))
    except RuntimeError as error:
        reason = f"cannot listen on {address} for gRPC: it is in use or is no address of this machine"
        if ssl is not None:
            reason += ", or server_key and server_cert of the TLS file do not go together"
        raise RequestError(reason) from error


def _credentials(ssl: SslConfig) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(ssl.server_key.encode(), ssl.server_cert.encode())],
        root_certificates=ssl.custom_ca.encode() or None,
        require_client_auth=ssl.client_verify,
    )
