"""One loaded version of a SavedModel: its signatures, and how to run them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import prediction_log_pb2

from app.errors import RequestError
from app.serving.batching import batched, can_batch
from app.serving.reading import UNTOLD, Reading, read_reading
from app.serving.saved_model import read_meta_graph, read_signatures, signatures_as_json
from app.serving.session import GraphSession, Run
from app.serving.signatures import DEFAULT_SIGNATURE, INTERNAL, Signature, TensorInfo
from app.serving.slices import in_slices, is_classifier
from app.serving.status import ServingError
from app.serving.text_protos import BatchingParameters
from app.serving.versions import version_number

logger = logging.getLogger(__name__)

WARM_UP_RECORDS = "assets.extra/tf_serving_warmup_requests"
MAX_WARM_UP_RECORDS = 1000  # TensorFlow Serving's own limit
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
        self._reading = _reading(path)
        self._session = GraphSession(path, gpu_memory_fraction)

        self._timeout_ms = timeout_ms
        self._runs: dict[str, Run] = {}
        # The first runs of a graph are the slowest: what is slow to warm up is not slow to answer.
        self._runs_without_limit: dict[str, Run] = {}
        try:
            for name, signature in self.signatures.items():
                if not name.startswith(INTERNAL):
                    self._prepare(signature, batching, on_batch)
        except BaseException:
            self._session.close()
            raise

    def _prepare(
        self,
        signature: Signature,
        batching: BatchingParameters | None,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        make: Callable[[int], Run] = partial(self._session.signature, signature)
        max_rows = None
        if batching is not None and can_batch(signature) and signature.name not in _UNBATCHED:
            make = batched(self._session, signature, batching, on_batch)
            max_rows = None if batching.enable_large_batch_splitting else batching.max_batch_size
        run = make(self._timeout_ms)
        # Each is a graph of its own to TensorFlow, optimized once more: a third of a second.
        without_limit = make(0) if self._timeout_ms else run
        if is_classifier(signature):
            run = in_slices(run, self._reading, self._timeout_ms, max_rows)
            without_limit = in_slices(without_limit, self._reading, 0, max_rows)
        self._runs[signature.name], self._runs_without_limit[signature.name] = run, without_limit

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
            return _replay(records, self._runs_without_limit)
        if DEFAULT_SIGNATURE in self._runs:
            # A graph of strangers may well refuse an empty row: it is warm all the same.
            with contextlib.suppress(ServingError, TypeError, ValueError):
                self._runs_without_limit[DEFAULT_SIGNATURE](blank_row(self.signatures[DEFAULT_SIGNATURE]))
        return 0

    def close(self) -> None:
        """Give the memory of variables and tables back. No call may be under way."""
        self._runs.clear()
        self._runs_without_limit.clear()
        self._session.close()


def _reading(path: Path) -> Reading:
    """How the graph reads. A file that cannot be understood is no reason not to serve: `verify` reports it."""
    try:
        return read_reading(path)
    except RequestError as error:
        logger.warning("%s; texts are run a few at a time", error)
        return UNTOLD


def _replay(records: Path, runs: Mapping[str, Run]) -> int:
    number = 0
    for number, record in enumerate(_records(records), start=1):
        if number > MAX_WARM_UP_RECORDS:
            raise RequestError(f"{records} holds more than {MAX_WARM_UP_RECORDS} warm-up records")
        try:
            _replay_record(record, runs)
        except (ServingError, DecodeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"{records}, record {number}: warm-up failed: {error}") from error
    return number


def _records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file; what is none is skipped, as TensorFlow Serving does, and said in the log."""
    try:
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    except tf.errors.DataLossError as error:
        logger.warning("%s is no whole TFRecord file, the rest of it is skipped: %s", path, error.message)


def _replay_record(record: bytes, runs: Mapping[str, Run]) -> None:
    log = prediction_log_pb2.PredictionLog.FromString(record)
    kind = log.WhichOneof("log_type")
    if kind != "predict_log":
        raise ValueError(f"it holds a {kind or 'log of no type'}; predict_log is what is replayed here")
    request = log.predict_log.request
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if name not in runs:
        raise ValueError(f'Serving signature name: "{name}" not found in signature def')
    runs[name]({key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()})


def blank_row(signature: Signature) -> dict[str, np.ndarray]:
    """Return inputs of one row that says nothing: empty strings, zeros."""
    return {name: _blank(info) for name, info in signature.inputs.items()}


def _blank(info: TensorInfo) -> np.ndarray:
    shape = tuple(1 if size < 0 else size for size in info.shape or ())
    dtype = tf.dtypes.as_dtype(types_pb2.DataType.Value(info.dtype))
    return np.full(shape, b"", object) if dtype == tf.string else np.zeros(shape, dtype.as_numpy_dtype)
