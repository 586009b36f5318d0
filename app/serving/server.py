"""The embedded server: loads a model, answers TensorFlow Serving's REST API, stops gracefully."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from app.errors import RequestError
from app.serving.http.rest import make_app
from app.serving.versions import ServedModel

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8501
# How long requests that are being answered may take to finish once the server was told to stop, in seconds.
DRAIN_SECONDS = 30
START_SECONDS = 30


def run(
    name: str,
    base_path: Path,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the model until SIGTERM or SIGINT; requests under way are answered first.

    `on_ready` is called with the server's URL once it accepts connections; the model has answered once by
    then. Port 0 takes a free one. Raises `RequestError` when the port cannot be had or the model cannot be
    loaded.
    """
    with _listen(host, port) as listener:
        server = _prepare(name, base_path, listener, on_ready)
        with _stop_signals_end_quietly():
            server.run(sockets=[listener])


@contextlib.contextmanager
def serve_in_background(name: str, base_path: Path, *, host: str = DEFAULT_HOST, port: int = 0) -> Iterator[str]:
    """The same server in a thread of this process: gives its URL, and stops it at the end of the block."""
    ready = threading.Event()
    with _listen(host, port) as listener:
        server = _prepare(name, base_path, listener, lambda _: ready.set())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="serving")
        thread.start()
        try:
            if not ready.wait(START_SECONDS):
                raise RuntimeError(f"the server at {server.url} did not start within {START_SECONDS} s")
            yield server.url
        finally:
            server.should_exit = True
            thread.join()


def _prepare(name: str, base_path: Path, listener: socket.socket, on_ready: Callable[[str], None] | None) -> _Server:
    """Load and warm the model, and only then take connections: until then they are refused at once."""
    server = _Server(ServedModel(name, base_path), listener, on_ready)
    try:
        listener.listen()
    except OSError as error:  # another server bound the same port meanwhile and was faster
        raise _port_in_use(*listener.getsockname()[:2]) from error
    return server


class _Server(uvicorn.Server):
    """uvicorn's server on a socket that listens already; says when it is ready."""

    def __init__(self, model: ServedModel, listener: socket.socket, on_ready: Callable[[str], None] | None) -> None:
        # Its log would mix with what the command line prints; errors still reach the root logger.
        config = uvicorn.Config(
            make_app([model]),
            log_config=None,
            log_level="error",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        super().__init__(config)
        self.url = _url(listener)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then report the address."""
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready(self.url)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. It is taken before the model loads, so that a busy port is reported at once."""
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


def _port_in_use(host: str, port: int) -> RequestError:
    return RequestError(f"port {port} on {host} is in use; take another one, or 0 for any that is free")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
