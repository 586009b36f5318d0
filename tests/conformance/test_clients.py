"""Clients that are not ours, against the same server: tensorflow-serving-api over gRPC, ovmsclient over both."""

from __future__ import annotations

import warnings

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

with warnings.catch_warnings():
    # Its protobuf code of 2023 trips over deprecations in Python's and protobuf's newer versions.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ovmsclient

SECONDS = 30  # a call may take
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


@pytest.fixture(scope="module")
def channel(server):
    if not server.grpc:
        pytest.skip("needs the address of the server's gRPC: --server-grpc")
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def predictions(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def example(**features: float) -> tf.train.Example:
    made = tf.train.Example()
    for name, value in features.items():
        made.features.feature[name].float_list.value.append(value)
    return made


def refusal(call, request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=SECONDS)
    return caught.value.code(), caught.value.details()


# --- tensorflow-serving-api ---


def test_stubs_predict(predictions):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", "two"
    request.inputs["a"].CopyFrom(tf.make_tensor_proto([0.5, 1.0]))
    request.inputs["b"].CopyFrom(tf.make_tensor_proto([2, 3], tf.int64))
    response = predictions.Predict(request, timeout=SECONDS)
    assert tf.make_ndarray(response.outputs["sum"]).tolist() == [2.5, 4.0]
    assert tf.make_ndarray(response.outputs["double_b"]).tolist() == [4, 6]
    assert (response.model_spec.name, response.model_spec.version.value) == ("toy", 3)


@pytest.mark.parametrize(("choice", "version"), [({}, 2), ({"version": 1}, 1), ({"label": "stable"}, 1)])
def test_stubs_choose_a_version(predictions, choice, version):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "two versions"
    if "version" in choice:
        request.model_spec.version.value = choice["version"]
    if "label" in choice:
        request.model_spec.version_label = choice["label"]
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(["a"]))
    response = predictions.Predict(request, timeout=SECONDS)
    assert tf.make_ndarray(response.outputs["version"]).tolist() == [version]
    assert response.model_spec.version.value == version


def test_stubs_classify_and_regress(predictions):
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name = "examples"
    classify.input.example_list.examples.append(example(x=0.25))
    (found,) = predictions.Classify(classify, timeout=SECONDS).result.classifications
    assert [(one.label, one.score) for one in found.classes] == [("low", 0.75), ("high", 0.25)]
    regress = regression_pb2.RegressionRequest()
    regress.model_spec.name, regress.model_spec.signature_name = "examples", "value"
    regress.input.example_list.examples.append(example(x=0.25, bias=0.5))
    assert [one.value for one in predictions.Regress(regress, timeout=SECONDS).result.regressions] == [0.75]


def test_stubs_read_status(models):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "two versions"
    found = models.GetModelStatus(request, timeout=SECONDS).model_version_status
    assert [(one.version, one.state, one.status.error_code) for one in found] == [(2, AVAILABLE, 0), (1, AVAILABLE, 0)]


def test_stubs_read_metadata(predictions):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "toy"
    response = predictions.GetModelMetadata(request, timeout=SECONDS)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    matrix = signatures.signature_def["matrix"]
    assert [dimension.size for dimension in matrix.inputs["x"].tensor_shape.dim] == [-1, 2]
    assert matrix.method_name == "tensorflow/serving/predict"


def test_stubs_get_the_same_refusals_as_rest(predictions, models):
    predict, status = predict_pb2.PredictRequest(), get_model_status_pb2.GetModelStatusRequest()
    predict.model_spec.name = status.model_spec.name = "none"
    missing = (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(none)")
    assert refusal(predictions.Predict, predict) == missing
    assert refusal(models.GetModelStatus, status) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find any versions of model none",
    )
    predict.model_spec.name, predict.model_spec.version_label = "toy", "nolabel"
    unknown = (grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: nolabel")
    assert refusal(predictions.Predict, predict) == unknown


# --- ovmsclient; without a version it asks for version 0, which only OpenVINO's server takes for the latest ---


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request, server):
    if request.param == "http":
        return ovmsclient.make_http_client(server.url.removeprefix("http://"))
    if not server.grpc:
        pytest.skip("needs the address of the server's gRPC: --server-grpc")
    return ovmsclient.make_grpc_client(server.grpc)


def test_ovmsclient_predicts(client):
    answer = client.predict({"text": ["a", "bbb"]}, "toy", model_version=3)
    assert [label if isinstance(label, str) else label.decode() for label in answer["label"]] == ["short", "long"]
    np.testing.assert_allclose(answer["probabilities"], [[0.5, 0.5], [0.25, 0.75]])


def test_ovmsclient_reads_status(client):
    found = client.get_model_status("toy", model_version=3)
    assert (found[3]["state"], found[3]["error_code"]) == ("AVAILABLE", 0)


def test_ovmsclient_reads_metadata(client):
    found = client.get_model_metadata("toy", model_version=3)
    if "model_spec" in found:  # over HTTP its reader looks for OpenVINO's names, and hands on an answer with others
        signatures = found["metadata"]["signature_def"]["signature_def"]
        assert (found["model_spec"]["version"], signatures["matrix"]["inputs"]["x"]["dtype"]) == ("3", "DT_FLOAT")
    else:
        assert (found["model_version"], found["inputs"]) == (3, {"text": {"shape": [-1], "dtype": "DT_STRING"}})


def test_ovmsclient_raises_its_own_error_for_an_unknown_model(client):
    with pytest.raises(ovmsclient.tfs_compat.base.errors.ModelNotFoundError, match="none"):
        client.predict({"text": ["a"]}, "none", model_version=1)
