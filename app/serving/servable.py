"""One loaded version of a SavedModel: its signatures, and how to run them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import prediction_log_pb2

from app.errors import RequestError
from app.serving.batching import batched, can_batch
from app.serving.saved_model import read_meta_graph, read_signatures, signatures_as_json
from app.serving.session import GraphSession, Run
from app.serving.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo
from app.serving.slices import in_slices, is_classifier
from app.serving.status import ServingError
from app.serving.text_protos import BatchingParameters
from app.serving.versions import version_number

WARM_UP_RECORDS = "assets.extra/tf_serving_warmup_requests"
# What TensorFlow writes for itself, to initialise and restore the graph.
_INTERNAL = "__"
# Monitoring asks for many texts at a time, and should not wait for others under its lease.
_UNBATCHED = ("text_statistics",)


class Servable:
    """A SavedModel version folder, loaded and ready to run; safe to call from several threads.

    `version` is the folder's name where that is an integer, else 0. `signatures` maps names to `Signature`;
    `signature_def` is the same in the form of TensorFlow Serving's metadata answer. With `batching` the requests of
    several threads are answered together. `timeout_ms` (0: none) is the longest that one call may take.
    """

    def __init__(
        self,
        path: Path,
        *,
        batching: BatchingParameters | None = None,
        timeout_ms: int = 0,
        gpu_memory_fraction: float = 0.0,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> None:
        self.path = path
        self.version = version_number(path)
        graph = read_meta_graph(path)
        self.signatures = read_signatures(graph)
        self.signature_def = signatures_as_json(graph)
        self._session = GraphSession(path, gpu_memory_fraction)

        def prepare(signature: Signature) -> Run:
            if batching is not None and can_batch(signature) and signature.name not in _UNBATCHED:
                run = batched(self._session, signature, batching, timeout_ms, on_batch)
            else:
                run = self._session.signature(signature, timeout_ms)
            return in_slices(run) if is_classifier(signature) else run

        self._runs = {
            name: prepare(signature) for name, signature in self.signatures.items() if not name.startswith(_INTERNAL)
        }

    def run(self, signature_name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one signature on whole tensors; strings are object arrays of bytes, going in and coming out.

        The inputs are those that the signature declares. Raises `ServingError` with TensorFlow's reason when
        the graph refuses their values.
        """
        return self._runs[signature_name](inputs)

    def warm_up(self) -> int:
        """Run before the first client does: the first run of a graph is far slower than the next ones.

        Replays the records of `assets.extra` as TensorFlow Serving does and returns their number; where there
        are none it runs one made-up row. Raises `RequestError` when a record fails.
        """
        records = self.path / WARM_UP_RECORDS
        if records.is_file():
            return _replay(self, records)
        if DEFAULT_SIGNATURE in self._runs:
            # A graph of strangers may well refuse an empty row: it is warm all the same.
            with contextlib.suppress(ServingError, TypeError, ValueError):
                self.run(DEFAULT_SIGNATURE, blank_row(self.signatures[DEFAULT_SIGNATURE]))
        return 0

    def close(self) -> None:
        """Give the memory of variables and tables back. No call may be under way."""
        self._runs.clear()
        self._session.close()


def _replay(servable: Servable, records: Path) -> int:
    number = 0
    for number, record in enumerate(tf.data.TFRecordDataset(str(records)).as_numpy_iterator(), start=1):
        try:
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            servable.run(request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs)
        except (ServingError, DecodeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{records}, record {number}: warm-up failed: {error}") from error
    return number


def blank_row(signature: Signature) -> dict[str, np.ndarray]:
    """Return inputs of one row that says nothing: empty strings, zeros."""
    return {name: _blank(info) for name, info in signature.inputs.items()}


def _blank(info: TensorInfo) -> np.ndarray:
    shape = tuple(1 if size < 0 else size for size in info.shape or ())
    dtype = tf.dtypes.as_dtype(types_pb2.DataType.Value(info.dtype))
    return np.full(shape, b"", object) if dtype == tf.string else np.zeros(shape, dtype.as_numpy_dtype)
