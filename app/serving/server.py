"""The embedded server: loads models, answers TensorFlow Serving's REST and gRPC API, stops gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from app.errors import RequestError
from app.serving.http.app import Site
from app.serving.http.connections import ConnectionLimits, allow_open_files, guarded_protocol
from app.serving.http.front import Front, FrontOptions
from app.serving.http.health import Health
from app.serving.http.page import make_page_app, public_paths
from app.serving.http.rest import RestApi, RestLimits
from app.serving.http.tls import check_tls
from app.serving.metrics import ServingMetrics
from app.serving.model_config import ModelSettings
from app.serving.options import DEFAULT_HOST, ServerOptions
from app.serving.repository import ModelRepository
from app.serving.service import PredictionService

if TYPE_CHECKING:
    from app.serving.grpc_api import GrpcServer
    from app.serving.servable import Servable

START_SECONDS = 30
BACKLOG = 2048


@dataclass(frozen=True)
class Addresses:
    """Where the server listens: the REST URL, and host:port of gRPC, None where there is none."""

    url: str
    grpc: str | None


def run(options: ServerOptions, on_ready: Callable[[Addresses], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first.

    `on_ready` is called once connections are accepted; every model has answered once by then. Raises
    `RequestError` when a port cannot be had or a model cannot be loaded.
    """
    with _started(options, on_ready or (lambda _: None)) as server, _stop_signals_end_quietly():
        server.run(sockets=[server.listener])


@contextlib.contextmanager
def serve_in_background(name: str, base_path: Path, *, host: str = DEFAULT_HOST, port: int = 0) -> Iterator[str]:
    """The same server for one model in a thread of this process: gives its URL, stops at the end of the block."""
    models = (ModelSettings(name, base_path),)
    options = ServerOptions(models, host=host, rest_api_port=port, grpc_port=None, file_system_poll_wait_seconds=0)
    with serve_options_in_background(options) as addresses:
        yield addresses.url


@contextlib.contextmanager
def serve_options_in_background(options: ServerOptions) -> Iterator[Addresses]:
    """Serve in a thread of this process: gives the addresses, stops at the end of the block."""
    ready = threading.Event()
    with _started(options, lambda _: ready.set()) as server:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [server.listener]}, name="serving")
        thread.start()
        try:
            if not ready.wait(START_SECONDS):
                raise RuntimeError(f"the server at {server.addresses.url} did not start within {START_SECONDS} s")
            yield server.addresses
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def _started(options: ServerOptions, on_ready: Callable[[Addresses], None]) -> Iterator[_Server]:
    """Take the ports, load and warm the models, and only then take connections: until then they are refused."""
    check_tls(options.tls_certificate, options.tls_key)
    with contextlib.ExitStack() as stack:
        # First of all, so that a busy port is reported before the models take their time to load.
        listener = stack.enter_context(_bind(options.host, options.rest_api_port))
        service = _service(options)
        stack.callback(service.repository.close)
        stack.callback(service.metrics.close)
        grpc = _grpc_server(service, options)
        service.repository.start()
        api = RestApi(service, _rest_limits(options), options.rest_api_num_threads)
        stack.callback(api.close)
        server = _Server(api, service, options, listener, grpc, on_ready)
        _listen(listener)
        if grpc is not None:
            grpc.start()
            stack.callback(grpc.stop, 0)  # it has drained by then, unless the start of REST failed
        yield server


def _service(options: ServerOptions) -> PredictionService:
    """The models with what counts their requests; nothing is loaded yet."""
    metrics = ServingMetrics()

    def load(folder: Path) -> Servable:
        # Imported here, where TensorFlow is needed: a wrong flag or `--help` should not wait seconds for it.
        from app.serving.servable import Servable

        with metrics.loading(folder):
            return Servable(
                folder,
                batching=options.batching,
                timeout_ms=options.rest_api_timeout_in_ms,
                gpu_memory_fraction=options.per_process_gpu_memory_fraction,
                on_batch=metrics.batch,
            )

    repository = ModelRepository(
        options.models,
        load,
        poll_seconds=options.file_system_poll_wait_seconds,
        config_file=options.model_config_file,
        config_poll_seconds=options.model_config_file_poll_wait_seconds,
        warm_up=options.enable_model_warmup,
    )
    metrics.follow(repository)
    return PredictionService(repository, metrics)


def _rest_limits(options: ServerOptions) -> RestLimits:
    return RestLimits(options.rest_api_timeout_in_ms / 1000, options.max_body_bytes, options.max_rows)


def _grpc_server(service: PredictionService, options: ServerOptions) -> GrpcServer | None:
    if options.grpc_port is None:
        return None
    from app.serving.grpc_api import GrpcServer

    return GrpcServer(
        service,
        f"{_bracketed(options.host)}:{options.grpc_port}",
        ssl=options.ssl,
        allows=None if options.access.is_open else options.access.allows,
        max_message_bytes=options.max_body_bytes,
        max_rows=options.max_rows,
        max_concurrent=options.max_concurrent_requests,
        workers=options.rest_api_num_threads,
        message_seconds=options.body_timeout_seconds,
    )


class _Server(uvicorn.Server):
    """uvicorn's server on a socket that listens already, with the gRPC server beside it; says when it is ready."""

    def __init__(
        self,
        api: RestApi,
        service: PredictionService,
        options: ServerOptions,
        listener: socket.socket,
        grpc: GrpcServer | None,
        on_ready: Callable[[Addresses], None],
    ) -> None:
        self.listener = listener
        self._grpc = grpc
        self._drain_seconds = options.drain_seconds
        self._on_ready = on_ready
        self._health = Health(service.repository)
        self._front = Front(_site(api, service, self._health, options), _front_options(options))
        super().__init__(_uvicorn_config(self._front, options))
        scheme = "https" if options.tls_certificate else "http"
        self.addresses = Addresses(
            _url(scheme, listener), None if grpc is None else f"{_bracketed(options.host)}:{grpc.port}"
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then report the addresses."""
        await super().startup(sockets)
        if self.started:
            self._on_ready(self.addresses)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Be ready no more, let both servers answer what is under way, and end."""
        self._health.begin_drain()
        self._front.begin_drain()
        rest = super().shutdown(sockets)
        if self._grpc is None:
            await rest
        else:
            await asyncio.gather(rest, asyncio.to_thread(self._grpc.stop, self._drain_seconds))


def _site(api: RestApi, service: PredictionService, health: Health, options: ServerOptions) -> Site:
    return Site(
        api,
        health=health,
        page=make_page_app(service.repository),
        exposition=service.metrics.exposition,
        metrics_path=options.metrics_path,
    )


def _front_options(options: ServerOptions) -> FrontOptions:
    return FrontOptions(
        access=options.access,
        open_paths=public_paths(),
        max_body_bytes=options.max_body_bytes,
        max_buffered_bytes=4 * options.max_body_bytes,
        body_timeout_seconds=options.body_timeout_seconds,
        max_concurrent_requests=options.max_concurrent_requests,
        access_log=options.access_log,
        cors=options.rest_api_enable_cors_support,
    )


def _uvicorn_config(front: Front, options: ServerOptions) -> uvicorn.Config:
    connections = ConnectionLimits()
    allow_open_files(connections.max_connections)
    return uvicorn.Config(
        front,
        loop="uvloop",
        http=guarded_protocol(connections),
        # Its log would mix with what the command line prints; errors still reach the root logger.
        log_config=None,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,  # nothing here asks for the client's address
        timeout_graceful_shutdown=math.ceil(options.drain_seconds),
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
    )


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise _port_in_use(host, port) from error
        raise RequestError(f"cannot listen on {host}, port {port}: {error}") from error
    return listener


def _listen(listener: socket.socket) -> None:
    try:
        listener.listen(BACKLOG)
    except OSError as error:  # another server bound the same port meanwhile and was faster
        raise _port_in_use(*listener.getsockname()[:2]) from error


def _port_in_use(host: str, port: int) -> RequestError:
    return RequestError(f"port {port} on {host} is in use; take another one, or 0 for any that is free")


def is_free(host: str, port: int) -> bool:
    """Whether a port could be had just now."""
    try:
        with _bind(host, port) as listener:
            listener.listen()
    except (RequestError, OSError):
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _url(scheme: str, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{_bracketed(host)}:{port}"


@contextlib.contextmanager
def _stop_signals_end_quietly() -> Iterator[None]:
    """uvicorn stops at these signals and then raises them again: to have been told to stop is no failure."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
