"""The programs that can serve an export: TensorFlow Serving, its container image, or our embedded server."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from app.errors import RequestError
from app.serving.versions import SAVED_MODEL_FILE, version_number

ENGINES = ("auto", "embedded", "tensorflow-serving", "docker")
MODEL_SERVER = "tensorflow_model_server"
# Pinned: what is served tomorrow is what was tried today. The image holds the ops of TensorFlow Text.
IMAGE = "tensorflow/serving:2.20.0"
CONTAINER_REST_PORT = 8501
DOCKER_ANSWER_SECONDS = 3


@dataclass(frozen=True)
class EngineCommand:
    """The program to serve with, as it is called, and why it was picked."""

    argv: tuple[str, ...]
    engine: str
    why: str

    def __str__(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.argv)


def plan(
    engine: str, *, name: str, base_path: Path, host: str = "127.0.0.1", port: int = 8501, gpu: bool = False
) -> EngineCommand:
    """The command that serves the model under `base_path`; nothing is started.

    `auto` takes `tensorflow_model_server` where it is on the PATH, else docker where it has the image, else
    the embedded server. Raises `RequestError` for an unknown engine, or one that cannot serve `base_path`.
    """
    if engine not in ENGINES:
        raise RequestError(f"unknown engine {engine!r}: allowed are {', '.join(ENGINES)}")
    why = "as asked"
    if engine == "auto":
        engine, why = _pick(base_path, _image(gpu))
    base_path = base_path.resolve()
    if engine == "embedded":
        return EngineCommand(_embedded(name, base_path, host, port), engine, why)
    if engine == "docker":
        return EngineCommand(_docker(name, base_path, host, port, gpu), engine, why)
    # It has no option for the address: every interface of the machine is open.
    return EngineCommand(_model_server(name, base_path, port), engine, f"{why}; it listens on every interface")


def launch(command: EngineCommand) -> NoReturn:
    """Become that program: signals and the exit code are its own. Raises `RequestError` if it is missing."""
    program = shutil.which(command.argv[0])
    if program is None:
        raise RequestError(f"{command.argv[0]} is not on the PATH: install it, or serve with --engine embedded")
    os.execv(program, command.argv)


def _pick(base_path: Path, image: str) -> tuple[str, str]:
    if shutil.which(MODEL_SERVER) is None:
        model_server = f"{MODEL_SERVER} is not on the PATH"
    elif _is_version_folder(base_path):
        model_server = f"{MODEL_SERVER} cannot serve a single version folder"
    else:
        return "tensorflow-serving", f"{MODEL_SERVER} is on the PATH"
    if _docker_has(image):
        return "docker", f"{model_server}, and docker has {image}"
    return "embedded", f"{model_server}, and no docker daemon has {image}"


def _image(gpu: bool) -> str:
    return f"{IMAGE}-gpu" if gpu else IMAGE


def _docker_has(image: str) -> bool:
    """Whether a docker daemon answers and has the image: nobody asked for a download of gigabytes."""
    program = shutil.which("docker")
    if program is None:
        return False
    try:
        answer = subprocess.run(
            [program, "image", "inspect", image], capture_output=True, timeout=DOCKER_ANSWER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _is_version_folder(path: Path) -> bool:
    return (path / SAVED_MODEL_FILE).is_file()


def _embedded(name: str, base_path: Path, host: str, port: int) -> tuple[str, ...]:
    where = (f"--model_base_path={base_path}", f"--model_name={name}")
    return ("python", "serve.py", "--engine=embedded", *where, f"--host={host}", f"--rest_api_port={port}")


def _model_server(name: str, base_path: Path, port: int) -> tuple[str, ...]:
    if _is_version_folder(base_path):
        raise RequestError(
            f"{base_path} is one version: {MODEL_SERVER} serves a folder of versions;"
            f" give {base_path.parent}, or serve this one with --engine embedded or docker"
        )
    # `--port=0` leaves the gRPC port closed.
    return (
        MODEL_SERVER,
        "--port=0",
        f"--rest_api_port={port}",
        f"--model_name={name}",
        f"--model_base_path={base_path}",
    )


def _docker(name: str, base_path: Path, host: str, port: int, gpu: bool) -> tuple[str, ...]:
    target = f"/models/{name}"
    if _is_version_folder(base_path):
        target += f"/{version_number(base_path)}"
    return (
        *("docker", "run", "--rm"),
        *(("--gpus", "all") if gpu else ()),
        *("--publish", f"{host}:{port}:{CONTAINER_REST_PORT}"),
        *("--mount", f"type=bind,source={base_path},target={target},readonly"),
        *("--env", f"MODEL_NAME={name}"),
        _image(gpu),
    )
