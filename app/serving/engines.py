"""The programs that can serve an export: TensorFlow Serving, its container image, or our embedded server."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from app.errors import RequestError
from app.serving.versions import SAVED_MODEL_FILE, version_number

ENGINES = ("auto", "embedded", "tensorflow-serving", "docker")
MODEL_SERVER = "tensorflow_model_server"
# Pinned: what is served tomorrow is what was tried today. The image holds the ops of TensorFlow Text.
IMAGE = "tensorflow/serving:2.20.0"
CONTAINER_REST_PORT = 8501
CONTAINER_GRPC_PORT = 8500
DOCKER_ANSWER_SECONDS = 3
NO_FLAGS: Mapping[str, str] = MappingProxyType({})


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
    engine: str,
    *,
    model: tuple[str, Path] | None,
    host: str = "127.0.0.1",
    port: int = 8501,
    gpu: bool = False,
    flags: Mapping[str, str] = NO_FLAGS,
    own_options: Mapping[str, str] = NO_FLAGS,
) -> EngineCommand:
    """The command that serves the model, (name, base path); nothing is started.

    `model` is None where `flags` holds a `model_config_file`. `flags` are TensorFlow Serving's own, `own_options` are
    those that only the embedded server has. `auto` takes `tensorflow_model_server` where it is on the PATH, else docker
    where it has the image, else the embedded server. Raises `RequestError` for an unknown engine, or one that cannot do
    what is asked.
    """
    if engine not in ENGINES:
        raise RequestError(f"unknown engine {engine!r}: allowed are {', '.join(ENGINES)}")
    if gpu and engine in ("embedded", "tensorflow-serving"):
        raise RequestError(f"--gpu picks docker's GPU image; --engine {engine} uses the GPUs that it sees by itself")
    why = "as asked"
    if engine == "auto":
        engine, why = _pick(model, _image(gpu), own_options)
    elif engine != "embedded" and own_options:
        names = ", ".join(f"--{name}" for name in own_options)
        raise RequestError(f"{names}: only the embedded server has it; --engine {engine} would leave it out unsaid")
    model = model and (model[0], model[1].resolve())
    if engine == "embedded":
        return EngineCommand(_embedded(model, host, port, {**flags, **own_options}), engine, why)
    if engine == "docker":
        return EngineCommand(_docker(model, host, port, gpu, flags), engine, why)
    # It has no option for the address: every interface of the machine is open.
    return EngineCommand(_model_server(model, port, flags), engine, f"{why}; it listens on every interface")


def launch(command: EngineCommand) -> NoReturn:
    """Become that program: signals and the exit code are its own. Raises `RequestError` if it is missing."""
    program = shutil.which(command.argv[0])
    if program is None:
        raise RequestError(f"{command.argv[0]} is not on the PATH: install it, or serve with --engine embedded")
    os.execv(program, command.argv)


def _pick(model: tuple[str, Path] | None, image: str, own_options: Mapping[str, str]) -> tuple[str, str]:
    if own_options:
        return "embedded", f"only it has --{next(iter(own_options))}"
    if shutil.which(MODEL_SERVER) is None:
        model_server = f"{MODEL_SERVER} is not on the PATH"
    elif model and _is_version_folder(model[1]):
        model_server = f"{MODEL_SERVER} cannot serve a single version folder"
    else:
        return "tensorflow-serving", f"{MODEL_SERVER} is on the PATH"
    if model and _docker_has(image):
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


def _as_text(flags: Mapping[str, str]) -> Iterator[str]:
    """The flags as they are typed; not those that every command names itself, nor what a variable (`$NAME`) holds."""
    for name, value in flags.items():
        if name not in ("model_name", "model_base_path", "rest_api_port") and not value.startswith("$"):
            yield f"--{name}={value}"


def _embedded(model: tuple[str, Path] | None, host: str, port: int, flags: Mapping[str, str]) -> tuple[str, ...]:
    where = (f"--model_base_path={model[1]}", f"--model_name={model[0]}") if model else ()
    start = ("python", "serve.py", "--engine=embedded", *where, f"--host={host}", f"--rest_api_port={port}")
    return (*start, *_as_text(flags))


def _model_server(model: tuple[str, Path] | None, port: int, flags: Mapping[str, str]) -> tuple[str, ...]:
    if model and _is_version_folder(model[1]):
        raise RequestError(
            f"{model[1]} is one version: {MODEL_SERVER} serves a folder of versions;"
            f" give {model[1].parent}, or serve this one with --engine embedded or docker"
        )
    which = (f"--model_name={model[0]}", f"--model_base_path={model[1]}") if model else ()
    # Unless a gRPC port is asked for it stays closed.
    grpc = () if "port" in flags else ("--port=0",)
    return (MODEL_SERVER, *grpc, f"--rest_api_port={port}", *which, *_as_text(flags))


def _docker(
    model: tuple[str, Path] | None, host: str, port: int, gpu: bool, flags: Mapping[str, str]
) -> tuple[str, ...]:
    files = [name for name in flags if name.endswith("_file")]
    if files or model is None:
        raise RequestError(
            f"--{files[0]}: a container does not see the file; see deploy/ for a compose file that mounts such files"
        )
    name, base_path = model
    target = f"/models/{name}"
    if _is_version_folder(base_path):
        target += f"/{version_number(base_path)}"
    grpc = ("--publish", f"{host}:{flags['port']}:{CONTAINER_GRPC_PORT}") if "port" in flags else ()
    return (
        *("docker", "run", "--rm"),
        *(("--gpus", "all") if gpu else ()),
        *("--publish", f"{host}:{port}:{CONTAINER_REST_PORT}"),
        *grpc,
        *("--mount", f"type=bind,source={base_path},target={target},readonly"),
        *("--env", f"MODEL_NAME={name}"),
        _image(gpu),
        *_as_text({key: value for key, value in flags.items() if key != "port"}),
    )
