"""The servers that are measured, each in a process of its own on loopback."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[1]
START_SECONDS = 180
STOP_SECONDS = 60


@contextlib.contextmanager
def embedded(base_path: Path, name: str, log: Path, *flags: str) -> Iterator[str]:
    """`serve.py`: gives the URL of the model's predictions."""
    port = free_port()
    command = [sys.executable, "serve.py", "--engine=embedded", f"--model_base_path={base_path}"]
    command += [f"--model_name={name}", f"--rest_api_port={port}", *flags]
    with running(command, port, f"/v1/models/{name}", log):
        yield f"http://127.0.0.1:{port}/v1/models/{name}:predict"


@contextlib.contextmanager
def mlflow_server(model: Path, log: Path, workers: int = 1) -> Iterator[str]:
    """`mlflow models serve` in this environment: gives the URL of its predictions.

    Its server is uvicorn with FastAPI, one worker process unless told otherwise; a request is answered in a thread of
    asyncio's pool, the event loop and HTTP parser are those that uvicorn finds (uvloop and httptools are installed
    here, so both servers have them). TensorFlow's threads are left at their defaults in both.
    """
    port = free_port()
    command = ["mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    with running(command, port, "/ping", log):
        yield f"http://127.0.0.1:{port}/invocations"


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, path: str, log: Path, more: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block, which begins when `path` answers 200; `more` is for its environment."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true", **(more or {})}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("ab") as output:
        # A group of its own: `mlflow` starts a shell that becomes the server.
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait(process, port, path, log)
        yield process
    finally:
        _stop(process)


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}; see {log}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"{process.args!r} did not answer within {START_SECONDS} s; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
