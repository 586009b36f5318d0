"""TensorFlow Serving's configuration files in protobuf's text form: batching, monitoring, TLS.

The package tensorflow-serving-api carries no classes for these three messages, so they are declared here from
their fields' names and types (TensorFlow Serving: session_bundle_config.proto, monitoring_config.proto,
ssl_config.proto). Field numbers never show in the text form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format

from app.errors import RequestError

# Paths of the server where the metrics would be hidden, or open to those without a token.
_TAKEN_PATHS = ("/v1/", "/healthz/", "/page/")
_PACKAGE = "valence.serving"
_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {"int64": _FIELD.TYPE_INT64, "bool": _FIELD.TYPE_BOOL, "string": _FIELD.TYPE_STRING}

# Message -> field -> its type. "Int64Value" and the like are written `name { value: 8 }`.
_MESSAGES = {
    "Int64Value": {"value": "int64"},
    "BoolValue": {"value": "bool"},
    "StringValue": {"value": "string"},
    "BatchingParameters": {
        "max_batch_size": "Int64Value",
        "batch_timeout_micros": "Int64Value",
        "max_enqueued_batches": "Int64Value",
        "num_batch_threads": "Int64Value",
        "thread_pool_name": "StringValue",
        "allowed_batch_sizes": "repeated int64",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": "BoolValue",
    },
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
    "SSLConfig": {"server_key": "string", "server_cert": "string", "custom_ca": "string", "client_verify": "bool"},
}


@dataclass(frozen=True)
class BatchingParameters:
    """How single requests are gathered into batches; names and defaults are TensorFlow Serving's.

    `allowed_batch_sizes`: a batch is padded up to the next of these sizes, so that a graph is run with few shapes.
    """

    max_batch_size: int = 1000  # rows
    batch_timeout_micros: int = 0  # how long the first row of a batch waits for company
    max_enqueued_batches: int = 10  # beyond these a request is refused
    num_batch_threads: int = 4  # batches that run at the same time
    allowed_batch_sizes: tuple[int, ...] = ()
    enable_large_batch_splitting: bool = False


@dataclass(frozen=True)
class SslConfig:
    """TLS of the gRPC port; keys and certificates are PEM texts, not paths."""

    server_key: str
    server_cert: str
    custom_ca: str = ""
    client_verify: bool = False


def read_batching_parameters(path: Path) -> BatchingParameters:
    """Read the file of `--batching_parameters_file`. Raises `RequestError` naming the field and what is allowed."""
    found = _read(path, "BatchingParameters")
    values = {field.name: _plain(value) for field, value in found.ListFields()}
    _refuse_unsupported(path, values)
    parameters = BatchingParameters(**values)
    _check_batching(path, parameters)
    return parameters


def read_monitoring_config(path: Path) -> str | None:
    """Read the file of `--monitoring_config_file`: the path of the Prometheus metrics, None where they are off."""
    config = _read(path, "MonitoringConfig").prometheus_config
    if config.path and not config.path.startswith("/"):
        raise RequestError(f"{path}: prometheus_config.path is {config.path!r}; it has to start with '/'")
    if config.path == "/" or config.path.lower().startswith(_TAKEN_PATHS) or set(config.path) & set("%?"):
        raise RequestError(f"{path}: prometheus_config.path is {config.path!r}, where something else answers")
    return (config.path or "/monitoring/prometheus/metrics") if config.enable else None


def read_ssl_config(path: Path) -> SslConfig:
    """Read the file of `--ssl_config_file`. Raises `RequestError` where the key or the certificate is missing."""
    config = _read(path, "SSLConfig")
    for name in ("server_key", "server_cert"):
        if not getattr(config, name):
            raise RequestError(f"{path}: {name} is missing: the PEM text of the key or certificate stands in the file")
    if config.client_verify and not config.custom_ca:
        raise RequestError(f"{path}: client_verify needs custom_ca, the certificate that signed the clients' own")
    return SslConfig(config.server_key, config.server_cert, config.custom_ca, config.client_verify)


def _refuse_unsupported(path: Path, values: dict[str, Any]) -> None:
    """Take out what changes nothing here, refuse what would."""
    values.pop("thread_pool_name", None)  # a name in TensorFlow Serving's own trace
    if values.pop("pad_variable_length_inputs", False):
        raise RequestError(f"{path}: pad_variable_length_inputs is not supported; texts are padded inside the graph")


def _check_batching(path: Path, parameters: BatchingParameters) -> None:
    for name in ("max_batch_size", "num_batch_threads", "max_enqueued_batches"):
        if getattr(parameters, name) < 1:
            raise RequestError(f"{path}: {name} is {getattr(parameters, name)}; allowed are whole numbers from 1")
    if parameters.batch_timeout_micros < 0:
        raise RequestError(f"{path}: batch_timeout_micros is {parameters.batch_timeout_micros}; allowed is 0 or more")
    sizes = parameters.allowed_batch_sizes
    if any(size < 1 for size in sizes) or any(left >= right for left, right in pairwise(sizes)):
        raise RequestError(f"{path}: allowed_batch_sizes are {list(sizes)}; they have to be positive and to rise")
    if sizes and sizes[-1] != parameters.max_batch_size:
        raise RequestError(
            f"{path}: the last of allowed_batch_sizes is {sizes[-1]}; it has to equal max_batch_size"
            f" ({parameters.max_batch_size})"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, message.Message):
        return value.value
    return value if isinstance(value, bool | str) else tuple(value)


def _read(path: Path, name: str) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error
    try:
        return text_format.Parse(text, _classes()[name]())
    except text_format.ParseError as error:
        raise RequestError(f"{path}, line {error}: not a {name} in protobuf's text form") from error


@cache
def _classes() -> Mapping[str, type[message.Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="valence_serving_config.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=name)
        for number, (field_name, type_name) in enumerate(fields.items(), start=1):
            _add_field(declared, field_name, number, type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


def _add_field(declared: descriptor_pb2.DescriptorProto, name: str, number: int, type_name: str) -> None:
    single = type_name.removeprefix("repeated ")
    field = declared.field.add(name=name, number=number)
    field.label = _FIELD.LABEL_REPEATED if single != type_name else _FIELD.LABEL_OPTIONAL
    if single in _TYPES:
        field.type = _TYPES[single]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{single}"
