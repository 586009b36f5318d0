"""Read a SavedModel's own description, the file `saved_model.pb`, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from app.errors import RequestError
from app.serving.signatures import Signature, TensorInfo
from app.serving.versions import SAVED_MODEL_FILE

SERVING_TAG = "serve"


def read_meta_graph(path: Path) -> meta_graph_pb2.MetaGraphDef:
    """Return the graph that is served. Raises `RequestError` when the folder holds none, or a damaged one."""
    file = path / SAVED_MODEL_FILE
    if not file.is_file():
        raise RequestError(
            f"{path} is no SavedModel: expected a version folder that holds {SAVED_MODEL_FILE} and variables/"
        )
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError as error:
        raise RequestError(f"{file} is damaged: it cannot be parsed as a SavedModel") from error
    for graph in saved_model.meta_graphs:
        if set(graph.meta_info_def.tags) == {SERVING_TAG}:
            return graph
    found = [sorted(graph.meta_info_def.tags) for graph in saved_model.meta_graphs]
    raise RequestError(f"{file} has no graph tagged '{SERVING_TAG}', the one that is served; it has {found}")


def read_signatures(graph: meta_graph_pb2.MetaGraphDef) -> dict[str, Signature]:
    """Every signature that the graph declares, by name."""
    return {name: _signature(name, definition) for name, definition in graph.signature_def.items()}


def signatures_as_json(graph: meta_graph_pb2.MetaGraphDef) -> dict[str, Any]:
    """The signatures in the form of TensorFlow Serving's metadata answer."""
    return {
        name: MessageToDict(definition, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
        for name, definition in graph.signature_def.items()
    }


def _signature(name: str, definition: meta_graph_pb2.SignatureDef) -> Signature:
    inputs = {key: _tensor_info(info) for key, info in definition.inputs.items()}
    outputs = {key: _tensor_info(info) for key, info in definition.outputs.items()}
    return Signature(name, inputs, outputs, definition.method_name)


def _tensor_info(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    shape = None if info.tensor_shape.unknown_rank else tuple(int(dim.size) for dim in info.tensor_shape.dim)
    return TensorInfo(info.name, types_pb2.DataType.Name(info.dtype), shape)
