"""Ask a server the questions of `verify` over gRPC, with the stubs that clients of TensorFlow Serving use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_service_pb2_grpc

from app.serving.roads import TIMEOUT_SECONDS, Ask, RoadError, Target, token_header
from app.serving.signatures import Signature

_ANY_SIZE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@contextmanager
def grpc_road(
    address: str, model: Target, signatures: Mapping[str, Signature], *, tls: bool = False, wait: bool = False
) -> Iterator[Ask]:
    """Yield a function that asks a signature over gRPC, and raises `RoadError`.

    `tls` goes by the certificates that gRPC trusts. `wait` is for a server that is still starting.
    """
    channel = _channel(address, tls)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    metadata = tuple(token_header().items())

    def ask(name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        request = _request(model, signatures[name], inputs)
        try:
            response = stub.Predict(request, timeout=TIMEOUT_SECONDS, wait_for_ready=wait, metadata=metadata)
        except grpc.RpcError as error:
            raise RoadError(f"{address} answered {error.code().name}: {error.details()}") from error
        return {key: tf.make_ndarray(tensor) for key, tensor in response.outputs.items()}

    try:
        yield ask
    finally:
        channel.close()


def _channel(address: str, tls: bool) -> grpc.Channel:
    if tls:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(), options=_ANY_SIZE)
    return grpc.insecure_channel(address, options=_ANY_SIZE)


def _request(model: Target, signature: Signature, inputs: Mapping[str, np.ndarray]) -> predict_pb2.PredictRequest:
    spec = model_pb2.ModelSpec(name=model.name, signature_name=signature.name, version_label=model.label or "")
    if model.version is not None:
        spec.version.value = model.version
    tensors = {
        name: tf.make_tensor_proto(array, types_pb2.DataType.Value(signature.inputs[name].dtype))
        for name, array in inputs.items()
    }
    return predict_pb2.PredictRequest(model_spec=spec, inputs=tensors)
