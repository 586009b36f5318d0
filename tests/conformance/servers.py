"""Our own server in a process of its own, started as a user starts it: `serve.py` with TensorFlow Serving's flags."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conformance.wire import exchange

PROJECT = Path(__file__).parents[2]
START_SECONDS = 120
STOP_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """Where a server answers: `url` over HTTP, `grpc` as host:port; and the folder of its models, if it is ours."""

    url: str
    grpc: str = ""
    models: Path | None = None


@contextlib.contextmanager
def started(models: Path, log: Path, *flags: str) -> Iterator[Server]:
    """Serve the folder of `toy_models.write_models` until the end of the block; what it says goes into `log`."""
    rest, grpc = _free_port(), _free_port()
    command = [
        *(sys.executable, "serve.py", "--engine=embedded", f"--model_config_file={models / 'models.config'}"),
        *(f"--rest_api_port={rest}", f"--port={grpc}", *flags),
    ]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    server = Server(f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}", models)
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            _wait(server.url, process, log)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert code == 0, f"the server ended with {code}: {log.read_text(errors='replace')}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once every model answers: the server takes no connection before that."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {log.read_text(errors='replace')}")
        with contextlib.suppress(OSError):
            exchange(url, "GET", "/v1/models")
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start within {START_SECONDS} s: {log.read_text(errors='replace')}")
