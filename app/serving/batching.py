"""Single requests gathered into batches by TensorFlow's own batch scheduler, inside the process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from app.serving.session import GraphSession, Run, without_deprecation_notices
from app.serving.signatures import Signature
from app.serving.status import ServingError
from app.serving.text_protos import BatchingParameters

_BATCH_SIZE = "__batch_size__"
# An error says where it came from. This node is ours alone: TensorFlow Serving's scheduler is outside the graph.
_SCHEDULER = re.compile(r"\n\t \[\[\{\{node [^{}]*BatchFunction\}\}\]\]")


def can_batch(signature: Signature) -> bool:
    """Whether every input and output has rows: a leading dimension of any size."""
    infos = [*signature.inputs.values(), *signature.outputs.values()]
    return bool(signature.inputs) and all(info.shape is None or info.shape[:1] == (-1,) for info in infos)


def batched(
    session: GraphSession,
    signature: Signature,
    parameters: BatchingParameters,
    on_batch: Callable[[int, int], None] | None = None,
) -> Callable[[int], Run]:
    """Return what makes, for a `timeout_ms`, a function that runs a signature together with other threads' requests.

    Where a full queue refuses a request it raises `ServingError` UNAVAILABLE, as TensorFlow Serving does, and
    INVALID_ARGUMENT for more rows than `max_batch_size`. `on_batch` gets the rows of the request, and the rows of
    the batch it was part of, the padding up to an allowed size included.
    """
    with session.graph.as_default():
        inputs = {name: tf.compat.v1.placeholder(*_spec(session, info.name)) for name, info in signature.inputs.items()}
        outputs = _batch(session, signature, parameters, list(inputs.values()))
    names = [*signature.outputs, _BATCH_SIZE]
    feeds = {name: tensor.name for name, tensor in inputs.items()}
    fetches = dict(zip(names, [tensor.name for tensor in outputs], strict=True))

    def with_timeout(timeout_ms: int) -> Run:
        run = session.function(feeds, fetches, timeout_ms)

        def run_batched(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            try:
                answer = run(values)
            except ServingError as error:
                raise ServingError(error.code, _SCHEDULER.sub("", error.message)) from error
            sizes = answer.pop(_BATCH_SIZE)
            if on_batch is not None and len(sizes):
                on_batch(len(sizes), int(sizes[0]))
            return answer

        return run_batched

    return with_timeout


def _spec(session: GraphSession, tensor_name: str) -> tuple[tf.DType, tf.TensorShape]:
    tensor = session.graph.get_tensor_by_name(tensor_name)
    return tensor.dtype, tensor.shape


def _batch(
    session: GraphSession, signature: Signature, parameters: BatchingParameters, inputs: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    fetches = [info.name for info in signature.outputs.values()]
    subgraph = _subgraph(session, fetches)
    feeds = [info.name for info in signature.inputs.values()]

    def answer(*batch: tf.Tensor) -> list[Any]:
        replaced = dict(zip(feeds, batch, strict=True))
        outputs = tf.graph_util.import_graph_def(subgraph, input_map=replaced, return_elements=fetches, name="")
        rows = tf.shape(batch[0])[0]
        return [*outputs, tf.fill([rows], rows, name="batch_size")]

    schedule = tf.nondifferentiable_batch_function(
        num_batch_threads=parameters.num_batch_threads,
        max_batch_size=parameters.max_batch_size,
        batch_timeout_micros=parameters.batch_timeout_micros,
        allowed_batch_sizes=list(parameters.allowed_batch_sizes) or None,
        max_enqueued_batches=parameters.max_enqueued_batches,
        enable_large_batch_splitting=parameters.enable_large_batch_splitting,
        autograph=False,
    )
    return schedule(answer)(*inputs)


def _subgraph(session: GraphSession, fetches: Sequence[str]) -> tf.compat.v1.GraphDef:
    """The part of the graph that the fetches need, to stand inside a function of its own.

    Variables and tables are found again by their shared names: a node without one gets the name that the
    original node has there.
    """
    nodes = [name.split(":")[0] for name in fetches]
    with without_deprecation_notices():
        subgraph = tf.compat.v1.graph_util.extract_sub_graph(session.graph.as_graph_def(), nodes)
    for node in subgraph.node:
        if "shared_name" in node.attr and not node.attr["shared_name"].s:
            node.attr["shared_name"].s = node.name.encode()
    return subgraph
