"""Ask a server the questions of `verify`: where it is, its REST API, and a TensorFlow Serving of our own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import requests

from app.errors import RequestError
from app.serving.array_text import Tensors
from app.serving.c_tensors import array_dtype
from app.serving.engines import MODEL_SERVER
from app.serving.http.access import TOKEN_VARIABLE
from app.serving.signatures import Signature
from app.serving.versions import version_number

TIMEOUT_SECONDS = 60.0
START_SECONDS = 300.0
END_SECONDS = 10.0
_PATH = re.compile(
    r"(?P<prefix>.*?)(/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(:predict)?)?/?"
)
_ADDRESS = re.compile(r"(?P<scheme>https?://)?(?P<address>unix:\S+|[^/\s]+:\d+)/?")

Ask = Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class RoadError(RuntimeError):
    """No answer came over a road; the message says why."""


@dataclass(frozen=True)
class Target:
    """A model on a server: `server` is http://host:port[/prefix]; one of `version` and `label` may be given."""

    server: str
    name: str
    version: int | None = None
    label: str | None = None

    @property
    def predict_url(self) -> str:
        """Where REST predictions are posted to."""
        version = f"/versions/{self.version}" if self.version is not None else ""
        label = f"/labels/{quote(self.label, safe='')}" if self.label is not None else ""
        return f"{self.server}/v1/models/{quote(self.name, safe='')}{version}{label}:predict"


def target(url: str, version_folder: Path) -> Target:
    """Where to ask for what lies in the folder: http://host:port, with the model's path where it is another.

    Without a path the model has the name of the folder above, and the version is the folder's own number. Raises
    `RequestError`.
    """
    forms = "http://host:port or http://host:port/v1/models/NAME[/versions/N|/labels/L]"
    try:
        parts = urlsplit(url)
    except ValueError as error:  # half of the brackets of an IPv6 address, ...
        raise RequestError(f"{url!r} is no URL of a server ({error}): expected {forms}") from error
    path = _PATH.fullmatch(parts.path)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment or path is None:
        raise RequestError(f"{url!r} is no URL of a server: expected {forms}")
    server = f"{parts.scheme}://{parts.netloc}{path['prefix'].rstrip('/')}"
    if path["name"] is None or (path["version"] is None and path["label"] is None):
        name = unquote(path["name"] or "") or version_folder.resolve().parent.name
        return Target(server, name, version_number(version_folder.resolve()) or None)
    version = None if path["version"] is None else int(path["version"])
    return Target(server, unquote(path["name"]), version, path["label"] and unquote(path["label"]))


def grpc_address(text: str) -> tuple[str, bool]:
    """The address host:port, and whether TLS is asked for with https:// before it. Raises `RequestError`."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise RequestError(f"{text!r} is no gRPC address: expected host:port, https://host:port for TLS, or unix:path")
    return found["address"], found["scheme"] == "https://"


def token_header() -> dict[str, str]:
    """The header that a server with a token asks for, where the token is in the environment."""
    token = os.environ.get(TOKEN_VARIABLE)
    return {"authorization": f"Bearer {token}"} if token else {}


def rest(model: Target, signatures: Mapping[str, Signature]) -> Ask:
    """Return a function that asks a signature over REST, in columns. It raises `RoadError`."""
    session = requests.Session()
    session.headers.update(token_header())

    def ask(name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        body = {"signature_name": name, "inputs": {key: _as_json(array) for key, array in inputs.items()}}
        try:
            response = session.post(model.predict_url, json=body, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise RoadError(f"{model.predict_url}: {_innermost(error)}") from error
        if response.status_code != 200:
            raise RoadError(f"{model.predict_url} answered {response.status_code}: {response.text[:500].strip()}")
        return _read_outputs(response, signatures[name])

    return ask


@contextmanager
def model_server(version_folder: Path) -> Iterator[tuple[str, Target]]:
    """Run the TensorFlow Serving that is on the PATH on the folder; yield where it answers gRPC, and as what.

    It listens on a socket file alone: it has no option for an address, so a port would be open to the network.
    Raises `RoadError` when it ends before it listens.
    """
    folder = version_folder.resolve()
    model = Target("", folder.parent.name, version_number(folder) or 1)
    with tempfile.TemporaryDirectory(prefix="valence-") as place:
        base = Path(place, model.name)
        base.mkdir()
        (base / str(model.version)).symlink_to(folder)
        socket, log = Path(place, "grpc.sock"), Path(place, "log")
        command = [shutil.which(MODEL_SERVER) or MODEL_SERVER, "--port=0", f"--grpc_socket_path={socket}"]
        command += [f"--model_name={model.name}", f"--model_base_path={base}"]
        with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
            try:
                _wait_for(socket, process, log)
                yield f"unix:{socket}", model
            finally:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def ask_all(ask: Ask, questions: Tensors) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Put each question; return the answers, and the reasons where none came, by signature."""
    answers, failures = {}, {}
    for name, inputs in questions.items():
        try:
            answers[name] = ask(name, inputs)
        except RoadError as error:
            failures[name] = str(error)
    return answers, failures


def _wait_for(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server listens: that is when it has loaded the model."""
    until = time.monotonic() + START_SECONDS
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > until:
            end = f"ended with exit code {process.returncode}" if process.poll() is not None else "does not get ready"
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"])[-1]
            raise RoadError(f"{MODEL_SERVER} {end}; it said: {last}")
        time.sleep(0.1)


def _as_json(array: np.ndarray) -> Any:
    if array.dtype == object:
        return _each(array.tolist(), lambda value: value.decode())
    if array.dtype.kind == "c":
        raise RoadError(f"JSON has no form for {array.dtype} numbers")
    return array.tolist()


def _read_outputs(response: requests.Response, signature: Signature) -> dict[str, np.ndarray]:
    """The arrays in an answer in columns, where the name of a single output is left out."""
    try:
        outputs = response.json()["outputs"]
        named = {next(iter(signature.outputs)): outputs} if len(signature.outputs) == 1 else outputs
        return {name: _array(named[name], info.dtype) for name, info in signature.outputs.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RoadError(f"{response.url} gave no answer of {signature.name!r}: {error!r}") from error


def _array(value: Any, dtype: str) -> np.ndarray:
    return np.array(_each(value, _bytes) if dtype == "DT_STRING" else value, array_dtype(dtype))


def _bytes(value: str | dict[str, str]) -> bytes:
    # An output whose name ends in `_bytes` comes in base64.
    return b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same nested lists with every value changed."""
    return [_each(item, change) for item in value] if isinstance(value, list) else change(value)


def _innermost(error: BaseException) -> str:
    """The operating system's reason, below the layers of libraries."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error)
