"""One loaded version of a SavedModel: its signatures, and how to run them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

# Registers FastBertNormalize and the other ops of TensorFlow Text with the runtime: without them a SavedModel
# that tokenises in its graph fails to load ("Op type not registered"). Only this side effect is wanted.
import tensorflow_text  # noqa: F401
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from app.errors import RequestError
from app.serving.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo
from app.serving.status import Code, ServingError
from app.serving.versions import SAVED_MODEL_FILE, version_number

SERVING_TAG = "serve"
WARM_UP_RECORDS = "assets.extra/tf_serving_warmup_requests"


class Servable:
    """A SavedModel version folder, loaded and ready to run.

    `version` is the folder's name where that is an integer, else 0. `signatures` maps names to `Signature`;
    `signature_def` is the same in the form of TensorFlow Serving's metadata answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = version_number(path)
        graph = _read_meta_graph(path)
        self.signatures = {name: _signature(name, definition) for name, definition in graph.signature_def.items()}
        self.signature_def = {name: _as_json(definition) for name, definition in graph.signature_def.items()}
        # The signatures only borrow the model's variables and tables: without this they vanish under a call.
        self._model = _load(path)

    def run(self, signature_name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one signature on whole tensors; strings are object arrays of bytes, going in and coming out.

        The inputs are those that the signature declares. Raises `ServingError` with TensorFlow's reason when
        the graph refuses their values.
        """
        function = self._model.signatures[signature_name]
        try:
            return {name: _array(tensor) for name, tensor in function(**_tensors(inputs)).items()}
        except tf.errors.OpError as error:
            raise ServingError(Code(error.error_code), _reason(error.message)) from error

    def warm_up(self) -> int:
        """Run before the first client does: the first run of a graph is far slower than the next ones.

        Replays the records of `assets.extra` as TensorFlow Serving does and returns their number; where there
        are none it runs one made-up row. Raises `RequestError` when a record fails.
        """
        records = self.path / WARM_UP_RECORDS
        if records.is_file():
            return _replay(self, records)
        if DEFAULT_SIGNATURE in self._model.signatures:
            # A graph of strangers may well refuse an empty row: it is warm all the same.
            with contextlib.suppress(ServingError, TypeError, ValueError):
                self.run(DEFAULT_SIGNATURE, blank_row(self.signatures[DEFAULT_SIGNATURE]))
        return 0


def _replay(servable: Servable, records: Path) -> int:
    number = 0
    for number, record in enumerate(tf.data.TFRecordDataset(str(records)).as_numpy_iterator(), start=1):
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        try:
            servable.run(request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs)
        except (ServingError, KeyError, TypeError) as error:
            raise RequestError(f"{records}, record {number}: warm-up failed: {error}") from error
    return number


def blank_row(signature: Signature) -> dict[str, np.ndarray]:
    """Return inputs of one row that says nothing: empty strings, zeros."""
    return {name: _blank(info) for name, info in signature.inputs.items()}


def _blank(info: TensorInfo) -> np.ndarray:
    shape = tuple(1 if size < 0 else size for size in info.shape or ())
    dtype = tf.dtypes.as_dtype(types_pb2.DataType.Value(info.dtype))
    return np.full(shape, b"", object) if dtype == tf.string else np.zeros(shape, dtype.as_numpy_dtype)


def _tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: tf.constant(array, tf.string if array.dtype == object else None) for name, array in inputs.items()}


def _array(tensor: tf.Tensor) -> np.ndarray:
    # numpy() gives bare bytes for a single string.
    return np.array(tensor.numpy(), object if tensor.dtype == tf.string else None)


def _reason(message: str) -> str:
    """What the graph itself said, as TensorFlow Serving's clients see it: without what eager mode adds."""
    return re.sub(r" \[Op:\w+\]$", "", message.rpartition("<stack traces unavailable>\n")[2])


def _read_meta_graph(path: Path) -> meta_graph_pb2.MetaGraphDef:
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


def _load(path: Path) -> Any:
    try:
        return tf.saved_model.load(str(path), tags=[SERVING_TAG])
    except (tf.errors.OpError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RequestError(f"{path} is a SavedModel that TensorFlow {tf.__version__} cannot load: {reason}") from error


def _signature(name: str, definition: meta_graph_pb2.SignatureDef) -> Signature:
    inputs = {key: _tensor_info(info) for key, info in definition.inputs.items()}
    outputs = {key: _tensor_info(info) for key, info in definition.outputs.items()}
    return Signature(name, inputs, outputs, definition.method_name)


def _tensor_info(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    shape = None if info.tensor_shape.unknown_rank else tuple(int(dim.size) for dim in info.tensor_shape.dim)
    return TensorInfo(info.name, types_pb2.DataType.Name(info.dtype), shape)


def _as_json(definition: meta_graph_pb2.SignatureDef) -> dict[str, Any]:
    return MessageToDict(definition, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
