"""A SavedModel's signatures, read without TensorFlow's own message classes.

Those come with an import of all of TensorFlow. The few fields that are wanted are declared here anew, under a package
name of our own; protobuf passes over the others. Source of the numbers: saved_model.proto and meta_graph.proto in
tensorflow/core/protobuf, tensor_shape.proto in tensorflow/core/framework.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from app.errors import RequestError
from app.serving.c_tensors import NAMES
from app.serving.signatures import Signature, TensorInfo
from app.serving.versions import SAVED_MODEL_FILE

SERVING_TAG = "serve"
_DTYPES = {0: "DT_INVALID", **NAMES}  # 0: of what is no tensor, such as an operation that initialises the graph
_PACKAGE = "valence.saved_model"
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _FIELD.TYPE_STRING, "int64": _FIELD.TYPE_INT64, "bool": _FIELD.TYPE_BOOL}
# Message -> field -> number and type; a type in brackets is repeated. An entry of a map is a message with two fields.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Dim": {"size": (1, "int64")},
    "Shape": {"dim": (2, "[Dim]"), "unknown_rank": (3, "bool")},
    "TensorInfo": {"name": (1, "string"), "dtype": (2, "int64"), "shape": (3, "Shape")},
    "TensorEntry": {"key": (1, "string"), "value": (2, "TensorInfo")},
    "Definition": {"inputs": (1, "[TensorEntry]"), "outputs": (2, "[TensorEntry]"), "method_name": (3, "string")},
    "DefinitionEntry": {"key": (1, "string"), "value": (2, "Definition")},
    "Info": {"tags": (4, "[string]")},
    "MetaGraph": {"info": (1, "Info"), "signatures": (5, "[DefinitionEntry]")},
    "SavedModel": {"graphs": (2, "[MetaGraph]")},
}


def signatures_in(meta_graph: bytes) -> dict[str, Signature]:
    """Every signature that a serialized `MetaGraphDef` declares, by name."""
    return _signatures(_message_class("MetaGraph").FromString(meta_graph))


def signatures_of(version_folder: Path) -> dict[str, Signature]:
    """Every signature of the graph that is served, out of `saved_model.pb`. Raises `RequestError`."""
    file = version_folder / SAVED_MODEL_FILE
    try:
        graphs = _message_class("SavedModel").FromString(file.read_bytes()).graphs
    except DecodeError as error:
        raise RequestError(f"{file} is damaged: it cannot be parsed as a SavedModel") from error
    for graph in graphs:
        if list(graph.info.tags) == [SERVING_TAG]:
            return _signatures(graph)
    raise RequestError(f"{file} has no graph tagged '{SERVING_TAG}', the one that is served")


def _signatures(graph: Any) -> dict[str, Signature]:
    return {entry.key: _signature(entry.key, entry.value) for entry in graph.signatures}


def _signature(name: str, definition: Any) -> Signature:
    inputs = {entry.key: _tensor_info(entry.value) for entry in definition.inputs}
    outputs = {entry.key: _tensor_info(entry.value) for entry in definition.outputs}
    return Signature(name, inputs, outputs, definition.method_name)


def _tensor_info(info: Any) -> TensorInfo:
    shape = None if info.shape.unknown_rank else tuple(dim.size for dim in info.shape.dim)
    return TensorInfo(info.name, _DTYPES.get(info.dtype, f"number {info.dtype}"), shape)


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="valence/saved_model.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number)
    field.label = _FIELD.LABEL_REPEATED if kind.startswith("[") else _FIELD.LABEL_OPTIONAL
    kind = kind.strip("[]")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
