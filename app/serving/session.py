"""A SavedModel in a TensorFlow session: how TensorFlow Serving itself loads and runs one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from app.errors import RequestError
from app.serving.c_library import op_libraries
from app.serving.saved_model import SERVING_TAG
from app.serving.signatures import Signature
from app.serving.status import Code, ServingError

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

# FastBertNormalize and the other operations of TensorFlow Text: without them a SavedModel that tokenises in its graph
# fails to load ("Op type not registered"). The package itself would import Keras.
for _library in op_libraries():
    tf.load_library(str(_library))


class GraphSession:
    """One loaded graph with its variables and tables; `close` gives their memory back.

    `gpu_memory_fraction` 0 lets the memory of a GPU grow as it is needed. Raises `RequestError` with
    TensorFlow's reason when the SavedModel cannot be loaded.
    """

    def __init__(self, path: Path, gpu_memory_fraction: float = 0.0) -> None:
        gpu = config_pb2.GPUOptions(
            allow_growth=not gpu_memory_fraction, per_process_gpu_memory_fraction=gpu_memory_fraction
        )
        self.graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self.graph, config=config_pb2.ConfigProto(gpu_options=gpu))
        try:
            with without_deprecation_notices():
                tf.compat.v1.saved_model.load(self._session, [SERVING_TAG], str(path))
        except Exception as error:  # a graph of strangers can fail in any way
            self._session.close()
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise RequestError(
                f"{path} is a SavedModel that TensorFlow {tf.__version__} cannot load: {reason}"
            ) from error

    def close(self) -> None:
        """Free the session. No call may be under way."""
        self._session.close()

    def signature(self, signature: Signature, timeout_ms: int) -> Run:
        """Return a function that runs a signature on whole tensors, by the names of its inputs and outputs."""
        feeds = {name: info.name for name, info in signature.inputs.items()}
        fetches = {name: info.name for name, info in signature.outputs.items()}
        return self.function(feeds, fetches, timeout_ms)

    def function(self, feeds: Mapping[str, str], fetches: Mapping[str, str], timeout_ms: int) -> Run:
        """Return a function of the graph: tensors by the keys of `feeds` in, by the keys of `fetches` out.

        It raises `ServingError` with TensorFlow's reason when the graph refuses the values, and
        DEADLINE_EXCEEDED when it takes longer than `timeout_ms` (0: no limit).
        """
        call = self._callable(list(feeds.values()), list(fetches.values()), timeout_ms)
        names = list(fetches)

        def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            try:
                values = call(*[inputs[name] for name in feeds])
            except tf.errors.OpError as error:
                raise ServingError(Code(error.error_code), _reason(error.message)) from error
            return {name: _array(value) for name, value in zip(names, values, strict=True)}

        return run

    def _callable(self, feed: Sequence[str], fetch: Sequence[str], timeout_ms: int) -> Callable[..., list[np.ndarray]]:
        options = config_pb2.CallableOptions(
            feed=feed, fetch=fetch, run_options=config_pb2.RunOptions(timeout_in_ms=timeout_ms)
        )
        # The public `make_callable` looks every name up again at each call: 300 microseconds against 40 (a sum of
        # embeddings, two cores). pyproject.toml holds TensorFlow to one minor version, and a test calls this.
        with self.graph.as_default():
            return self._session._make_callable_from_options(options)


def _array(value: np.ndarray | np.generic | bytes) -> np.ndarray:
    # A session gives bare values for tensors without dimensions.
    if isinstance(value, np.ndarray):
        return value
    return np.array(value, object if isinstance(value, bytes) else None)


@contextmanager
def without_deprecation_notices() -> Iterator[None]:
    """TensorFlow calls session graphs deprecated, yet they are how TensorFlow Serving runs every model."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return "Instructions for updating" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def _reason(message: str) -> str:
    """What the graph itself said, as TensorFlow Serving's clients see it: without what Python adds."""
    return re.sub(r" \[Op:\w+\]$", "", message.rpartition("<stack traces unavailable>\n")[2])
