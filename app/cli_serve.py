"""The command `serve` and its options: TensorFlow Serving's own flags under their own names, and ours."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from click.core import ParameterSource
from rich.console import Console

from app.errors import RequestError

if TYPE_CHECKING:
    from app.serving.model_config import ModelSettings
    from app.serving.options import ServerOptions
    from app.serving.server import Addresses

# What TensorFlow Serving's program takes under the same name; with another engine than ours these are handed on.
TENSORFLOW_SERVING_FLAGS = (
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "rest_api_num_threads",
    "rest_api_enable_cors_support",
    "model_name",
    "model_base_path",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "file_system_poll_wait_seconds",
    "enable_batching",
    "batching_parameters_file",
    "enable_model_warmup",
    "monitoring_config_file",
    "per_process_gpu_memory_fraction",
    "ssl_config_file",
)
# Options of the command itself, whatever the engine.
_COMMAND = ("host", "engine", "gpu", "dry_run", "artifacts")

TOKEN_VARIABLE = "VALENCE_TOKEN"

# TensorFlow Serving takes a flag's value behind `=`; the command line here has `--flag` and `--no_flag`.
_BOOLEAN = re.compile(
    r"--(enable[_-]batching|enable[_-]model[_-]warmup|rest[_-]api[_-]enable[_-]cors[_-]support)=(true|false|1|0)",
    re.IGNORECASE,
)


def accept_boolean_values(arguments: Sequence[str]) -> list[str]:
    """Write `--enable_batching=true` as `--enable_batching`, and `=false` as `--no_enable_batching`."""

    def plain(argument: str) -> str:
        match = _BOOLEAN.fullmatch(argument)
        if match is None:
            return argument
        return f"--{match[1]}" if match[2].lower() in ("true", "1") else f"--no_{match[1]}"

    return [plain(argument) for argument in arguments]


def _option(panel: str, name: str, text: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", help=text, rich_help_panel=panel, **more)


MODEL, ADDRESS, WORK, LIMITS, ACCESS = "What is served", "Where", "How it works", "Limits", "Who may ask, what is seen"


def serve(
    context: typer.Context,
    model_base_path: Annotated[
        Path | None, _option(MODEL, "model_base_path", "Folder of versions, or one version folder.")
    ] = None,
    model_name: Annotated[str | None, _option(MODEL, "model_name", "Name in the URL; the folder's by default.")] = None,
    model_config_file: Annotated[
        Path | None,
        _option(MODEL, "model_config_file", "Several models, version policies, labels (ModelServerConfig)."),
    ] = None,
    model_config_file_poll_wait_seconds: Annotated[
        float, _option(MODEL, "model_config_file_poll_wait_seconds", "Read that file again so often; 0: never.", min=0)
    ] = 0,
    file_system_poll_wait_seconds: Annotated[
        float, _option(MODEL, "file_system_poll_wait_seconds", "Look for new versions so often; 0: never.", min=0)
    ] = 1,
    enable_model_warmup: Annotated[
        bool,
        _option(
            MODEL, "enable_model_warmup/--no_enable_model_warmup", "Replay warm-up records before a version serves."
        ),
    ] = True,
    engine: Annotated[
        str, _option(MODEL, "engine", "embedded, tensorflow-serving, docker, or auto: what is there.")
    ] = "embedded",
    gpu: Annotated[bool, _option(MODEL, "gpu", "docker: the GPU image, with all GPUs.")] = False,
    artifacts: Annotated[
        Path, _option(MODEL, "artifacts", "Folder of runs, exports and caches.", envvar="VALENCE_ARTIFACTS")
    ] = Path("artifacts"),
    dry_run: Annotated[bool, _option(MODEL, "dry-run", "Print the command and exit.")] = False,
    host: Annotated[
        str, _option(ADDRESS, "host", "Address to listen on; this machine alone by default.")
    ] = "127.0.0.1",
    rest_api_port: Annotated[int, _option(ADDRESS, "rest_api_port", "REST port; 0 takes a free one.")] = 8501,
    port: Annotated[
        int | None, _option(ADDRESS, "port", "gRPC port; 0: no gRPC. By default 8500 if it is free.", min=0)
    ] = None,
    ssl_config_file: Annotated[
        Path | None, _option(ADDRESS, "ssl_config_file", "TLS of the gRPC port (SSLConfig).")
    ] = None,
    tls_certificate: Annotated[
        Path | None, _option(ADDRESS, "tls_certificate", "PEM certificate: the REST port speaks HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, _option(ADDRESS, "tls_key", "PEM key of that certificate.")] = None,
    enable_batching: Annotated[
        bool, _option(WORK, "enable_batching/--no_enable_batching", "Answer requests that come together in one batch.")
    ] = False,
    batching_parameters_file: Annotated[
        Path | None, _option(WORK, "batching_parameters_file", "How batches are made (BatchingParameters).")
    ] = None,
    rest_api_num_threads: Annotated[
        int | None, _option(WORK, "rest_api_num_threads", "Requests worked on at a time; 4 a core by default.", min=1)
    ] = None,
    per_process_gpu_memory_fraction: Annotated[
        float, _option(WORK, "per_process_gpu_memory_fraction", "Share of a GPU's memory; 0: as needed.", min=0, max=1)
    ] = 0,
    rest_api_timeout_in_ms: Annotated[
        int, _option(LIMITS, "rest_api_timeout_in_ms", "A request that takes longer gets 504.", min=1)
    ] = 30_000,
    max_body_bytes: Annotated[int, _option(LIMITS, "max_body_bytes", "A larger body gets 413.", min=1)] = 100
    * 1024
    * 1024,
    max_rows: Annotated[int, _option(LIMITS, "max_rows", "A request of more rows gets 400.", min=1)] = 10_000,
    max_concurrent_requests: Annotated[
        int, _option(LIMITS, "max_concurrent_requests", "Requests beyond these get 503.", min=1)
    ] = 256,
    body_timeout_seconds: Annotated[
        float, _option(LIMITS, "body_timeout_seconds", "A request that takes longer to arrive gets 408.", min=0.001)
    ] = 30,
    drain_seconds: Annotated[
        float, _option(LIMITS, "drain_seconds", "Told to stop, requests under way may take so long.", min=0)
    ] = 30,
    token_file: Annotated[
        Path | None, _option(ACCESS, "token_file", "Bearer tokens, one a line; else the variable VALENCE_TOKEN.")
    ] = None,
    no_auth: Annotated[
        bool, _option(ACCESS, "no_auth", "Listen beyond this machine without a token: anybody may ask.")
    ] = False,
    rest_api_enable_cors_support: Annotated[
        bool,
        _option(
            ACCESS,
            "rest_api_enable_cors_support/--no_rest_api_enable_cors_support",
            "Pages of other hosts may ask (CORS).",
        ),
    ] = False,
    access_log: Annotated[
        bool, _option(ACCESS, "access_log", "One JSON line a request on standard error; never a text or a token.")
    ] = False,
    monitoring_config_file: Annotated[
        Path | None,
        _option(ACCESS, "monitoring_config_file", "Whether and where Prometheus metrics are (MonitoringConfig)."),
    ] = None,
) -> None:
    """Serve the champion, a folder, or several models, with TensorFlow Serving's REST and gRPC API."""
    from app.serving.engines import launch, plan

    models = _models(model_config_file, model_base_path, model_name, artifacts)
    given = _given(context)
    command = plan(
        engine,
        model=None if model_config_file else (models[0].name, models[0].base_path),
        host=host,
        port=rest_api_port,
        gpu=gpu,
        flags={name: given[name] for name in TENSORFLOW_SERVING_FLAGS if name in given},
        own_options=_own_options(engine, given),
    )
    if dry_run:
        print(command)
        return
    console = Console(stderr=True)
    console.print(f"engine {command.engine}: {command.why}", highlight=False, soft_wrap=True)
    if command.engine != "embedded":
        launch(command)
    _serve_embedded(models, context.params, console)


def _models(config_file: Path | None, base_path: Path | None, name: str | None, artifacts: Path) -> list[ModelSettings]:
    """The models of the file, or the one that is named, by default the champion."""
    from app.serving.model_config import ModelSettings, read_model_config
    from app.serving.versions import resolve_model

    if config_file is None:
        return [ModelSettings(*resolve_model(base_path, name, artifacts / "exports"))]
    if base_path or name:
        raise RequestError("--model_config_file names the models; give no --model_base_path and --model_name beside it")
    return read_model_config(config_file)


def _own_options(engine: str, given: dict[str, str]) -> dict[str, str]:
    """The options that were typed and that TensorFlow Serving has not."""
    own = {name: given[name] for name in given if name not in (*TENSORFLOW_SERVING_FLAGS, *_COMMAND)}
    if os.environ.get(TOKEN_VARIABLE) and engine != "embedded":
        own["token_file"] = f"${TOKEN_VARIABLE}"  # who set it wants a server that asks for it: no engine may drop that
    if engine == "tensorflow-serving" and "host" in given:
        own["host"] = given["host"]
    return own


def _given(context: typer.Context) -> dict[str, str]:
    """The options that were typed, as text; those that keep their default are left out."""
    typed = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    values = {name: context.params[name] for name in typed}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


def _serve_embedded(models: Sequence[ModelSettings], parameters: Mapping[str, Any], console: Console) -> None:
    options = _options(models, parameters)
    from app.quiet import import_tensorflow

    import_tensorflow(keras=False)
    # Asked only now: TensorFlow takes seconds, in which another server may take the port.
    options = dataclasses.replace(options, grpc_port=_grpc_port(parameters["host"], parameters["port"]))
    from app.serving.http.request_log import log_json_lines
    from app.serving.server import run

    log_json_lines(level=logging.INFO if options.access_log else logging.WARNING)
    run(options, on_ready=lambda addresses: _tell_ready(console, addresses, [model.name for model in models]))


def _options(models: Sequence[ModelSettings], parameters: Mapping[str, Any]) -> ServerOptions:
    """Every flag and every file that a flag names, read and checked before TensorFlow takes its seconds to load.

    The gRPC port is left to `_grpc_port`.
    """
    from app.serving.http.access import read_access, require_token
    from app.serving.http.tls import check_tls
    from app.serving.options import METRICS_PATH, ServerOptions
    from app.serving.text_protos import (
        BatchingParameters,
        read_batching_parameters,
        read_monitoring_config,
        read_ssl_config,
    )

    files = {name: path for name, path in parameters.items() if name.endswith("_file")}
    if files["batching_parameters_file"] and not parameters["enable_batching"]:
        raise RequestError("--batching_parameters_file says how batches are made; give --enable_batching too")
    check_tls(parameters["tls_certificate"], parameters["tls_key"])
    access = read_access(files["token_file"], os.environ)
    require_token(parameters["host"], access, no_auth=parameters["no_auth"])
    batching = None
    if parameters["enable_batching"]:
        file = files["batching_parameters_file"]
        batching = read_batching_parameters(file) if file else BatchingParameters()
    monitoring = files["monitoring_config_file"]
    same = {field.name for field in dataclasses.fields(ServerOptions)} & parameters.keys()
    values = {name: parameters[name] for name in same if parameters[name] is not None}
    return ServerOptions(
        **{
            **values,
            "models": tuple(models),
            "ssl": read_ssl_config(files["ssl_config_file"]) if files["ssl_config_file"] else None,
            "access": access,
            "batching": batching,
            "metrics_path": read_monitoring_config(monitoring) if monitoring else METRICS_PATH,
        }
    )


def _grpc_port(host: str, asked: int | None) -> int | None:
    """The port that was asked for; else TensorFlow Serving's own, unless another program has it."""
    from app.serving.options import DEFAULT_GRPC_PORT
    from app.serving.server import is_free

    if asked is not None:
        return asked or None
    return DEFAULT_GRPC_PORT if is_free(host, DEFAULT_GRPC_PORT) else None


def _tell_ready(console: Console, addresses: Addresses, names: Sequence[str]) -> None:
    from app.cli_output import next_commands
    from app.cli_train import DEMO_TEXTS

    for name in names:
        console.print(f"serving {name} at {addresses.url}/v1/models/{name}", highlight=False, soft_wrap=True)
    grpc = f"gRPC at {addresses.grpc}" if addresses.grpc else "no gRPC: give --port for it"
    console.print(f"page at {addresses.url}/   {grpc}   Ctrl-C ends it", highlight=False, soft_wrap=True)
    body = json.dumps({"instances": DEMO_TEXTS[:1]})
    next_commands(console, (f"curl -d '{body}' {addresses.url}/v1/models/{names[0]}:predict", "ask it"))
