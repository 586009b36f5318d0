"""TensorFlow Serving's gRPC services, asked of the real server over real channels."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from app.serving.grpc_api import GrpcServer
from app.serving.metrics import ServingMetrics
from app.serving.model_config import ModelSettings, VersionPolicy
from app.serving.repository import ModelRepository, ModelSpec
from app.serving.servable import Servable
from app.serving.service import PredictionService
from app.serving.status import Code

with warnings.catch_warnings():
    # Its protobuf code of 2023 trips over deprecations in Python's and protobuf's newer versions.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ovmsclient

PATIENCE = 30  # seconds that a test waits for what has to come


class Toy(tf.Module):
    """A signature for each call; `factor` tells the versions apart."""

    def __init__(self, factor: float) -> None:
        self.factor = tf.Variable(factor)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, name="a"), tf.TensorSpec([None], tf.int64, name="b")]
    )
    def combine(self, a, b):
        return {"sum": self.factor * (a + tf.cast(b, tf.float32)), "double_b": b * 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def upper(self, text):
        return {"text": tf.strings.upper(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def positive(self, x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="not positive " + 3000 * "é")]):
            return {"y": tf.identity(x)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("models") / "toy"
    for version in (1, 2):
        toy = Toy(float(version))
        names = ("upper", "positive")
        signatures = {"serving_default": toy.combine} | {name: getattr(toy, name) for name in names}
        tf.saved_model.save(toy, str(base / str(version)), signatures=signatures)
    settings = ModelSettings("toy", base, VersionPolicy("all"), {"stable": 1, "canary": 2})
    repository = ModelRepository([settings], Servable, poll_seconds=0)
    repository.start()
    yield repository
    repository.close()


@contextmanager
def serving(service: PredictionService, **options) -> Iterator[GrpcServer]:
    server = GrpcServer(service, "127.0.0.1:0", **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(PATIENCE)


@pytest.fixture(scope="module")
def service(repository: ModelRepository):
    metrics = ServingMetrics()
    yield PredictionService(repository, metrics)
    metrics.close()


@contextmanager
def asking(service: PredictionService, **options) -> Iterator[grpc.Channel]:
    with serving(service, **options) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def server(service: PredictionService):
    with serving(service) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: GrpcServer):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction(channel: grpc.Channel) -> prediction_service_pb2_grpc.PredictionServiceStub:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model(channel: grpc.Channel) -> model_service_pb2_grpc.ModelServiceStub:
    return model_service_pb2_grpc.ModelServiceStub(channel)


def predict_request(signature: str = "", *, name: str = "toy", **inputs) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(
            value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
        )
    return request


def combine_request(*, name: str = "toy", **inputs) -> predict_pb2.PredictRequest:
    return predict_request(name=name, **{"a": np.float32([1, 2]), "b": np.int64([10, 20]), **inputs})


def arrays(response: predict_pb2.PredictResponse) -> dict[str, list]:
    return {name: tf.make_ndarray(tensor).tolist() for name, tensor in response.outputs.items()}


def failure(call, request, **options) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=PATIENCE, **options)
    return caught.value.code().name, caught.value.details()


# --- Predict ---


def test_predict_answers_with_every_output_and_says_who_answered(prediction):
    response = prediction.Predict(combine_request())
    assert arrays(response) == {"sum": [22.0, 44.0], "double_b": [20, 40]}
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("toy", "serving_default", 2)


def test_an_answer_is_in_the_field_of_its_dtype_which_some_clients_read_alone(prediction):
    outputs = prediction.Predict(combine_request()).outputs
    assert list(outputs["sum"].float_val) == [22.0, 44.0]
    assert list(outputs["double_b"].int64_val) == [20, 40]


def test_values_come_in_the_field_of_the_dtype_or_as_content(prediction):
    content = tf.make_tensor_proto(np.float32([1, 2]))
    assert content.tensor_content
    field = tensor_pb2.TensorProto(
        dtype=tf.float32.as_datatype_enum, tensor_shape=content.tensor_shape, float_val=[1, 2]
    )
    assert prediction.Predict(combine_request(a=field)) == prediction.Predict(combine_request(a=content))


def test_strings_are_bytes_of_any_kind(prediction):
    response = prediction.Predict(
        predict_request("upper", text=np.array([b"wort", "wörd".encode(), b"\xff\x00"], object))
    )
    assert response.outputs["text"].string_val[:] == [b"WORT", "WöRD".encode(), b"\xff\x00"]
    assert response.model_spec.signature_name == "upper"


def test_output_filter_chooses_the_outputs(prediction):
    request = combine_request()
    request.output_filter.append("sum")
    assert arrays(prediction.Predict(request)) == {"sum": [22.0, 44.0]}


def test_a_version_is_chosen_by_number_or_label(prediction):
    by_number, by_label, latest = combine_request(), combine_request(), combine_request()
    by_number.model_spec.version.value = 1
    by_label.model_spec.version_label = "stable"
    latest.model_spec.version_label = "canary"
    for request, expected in ((by_number, 1), (by_label, 1), (latest, 2)):
        response = prediction.Predict(request)
        assert response.model_spec.version.value == expected
        assert arrays(response)["sum"] == [11.0 * expected, 22.0 * expected]


def changed(request: predict_pb2.PredictRequest, **spec) -> predict_pb2.PredictRequest:
    for name, value in spec.items():
        if name == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, name, value)
    return request


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (combine_request(name=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (combine_request(name="none"), "NOT_FOUND", "Servable not found for request: Latest(none)"),
        (changed(combine_request(), version=99), "NOT_FOUND", "Servable not found for request: Specific(toy, 99)"),
        (
            changed(combine_request(), version_label="nolabel"),
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: nolabel",
        ),
        (predict_request("nope"), "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        (
            predict_request("__saved_model_init_op"),
            "FAILED_PRECONDITION",
            'Serving signature key "__saved_model_init_op" not found.',
        ),
        (
            predict_request(a=np.float32([1]), c=np.float32([1]), d=np.float32([1])),
            "INVALID_ARGUMENT",
            "input size does not match signature: 3!=2 len({a,c,d}) != len({a,b}). Sent extra: {c,d}."
            " Missing but required: {b}.",
        ),
        (
            predict_request(a=np.float32([1]), c=np.float32([1])),
            "INVALID_ARGUMENT",
            "Signature input alias: b(feed name: serving_default_b:0) not found in request and no default value"
            " provided. Inputs expected to be in the request {a,c}, or default input alias set: ",
        ),
        (
            combine_request(a=np.int64([1, 2])),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but int64 is provided",
        ),
        (
            combine_request(b=np.array([b"1", b"2"])),
            "INVALID_ARGUMENT",
            "Expects arg[1] to be int64 but string is provided",
        ),
        (
            combine_request(a=tensor_pb2.TensorProto(dtype=1, tensor_content=b"123")),
            "INVALID_ARGUMENT",
            "tensor parsing error: a",
        ),
        (
            combine_request(a=np.float32([[1, 2]])),
            "INVALID_ARGUMENT",
            "Input a has shape [1,2] but the signature takes [-1]",
        ),
    ],
)
def test_what_cannot_be_predicted(prediction, request_, code, message):
    assert failure(prediction.Predict, request_) == (code, message)


def test_an_output_is_asked_for_by_its_name_and_once(prediction):
    request = combine_request()
    request.output_filter.extend(["sum", "nope"])
    assert failure(prediction.Predict, request) == (
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: nope Outputs expected to be in the set {double_b,sum}.",
    )
    request.output_filter[1] = "sum"
    assert failure(prediction.Predict, request) == ("INVALID_ARGUMENT", "duplicate output tensor alias: sum")


def test_the_graphs_own_refusal_reaches_the_client_however_long_it_is(prediction):
    code, message = failure(prediction.Predict, predict_request("positive", x=np.float32([-1])))
    assert code == "INVALID_ARGUMENT"
    assert "not positive éé" in message
    assert message.endswith("...")


def test_a_request_has_no_more_rows_than_allowed(service):
    with asking(service, max_rows=2) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert len(stub.Predict(combine_request()).outputs["sum"].float_val) == 2
        assert failure(stub.Predict, combine_request(a=np.float32([1, 2, 3]))) == (
            "INVALID_ARGUMENT",
            "The request has 3 rows: at most 2 are allowed; ask in several requests",
        )


# --- GetModelMetadata, GetModelStatus ---


def metadata_request(*fields: str, name: str = "toy") -> get_model_metadata_pb2.GetModelMetadataRequest:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    return request


def test_metadata_describes_the_signatures_as_the_file_does(prediction, repository):
    response = prediction.GetModelMetadata(metadata_request("signature_def"))
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert (response.model_spec.name, response.model_spec.version.value) == ("toy", 2)
    default = found.signature_def["serving_default"]
    assert default.inputs["b"].dtype == tf.int64.as_datatype_enum
    assert default.inputs["b"].name == "serving_default_b:0"
    assert [dim.size for dim in default.inputs["b"].tensor_shape.dim] == [-1]
    assert default.method_name == "tensorflow/serving/predict"
    assert {"upper", "positive"} < set(found.signature_def)


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (get_model_metadata_pb2.GetModelMetadataRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            metadata_request(),
            "INVALID_ARGUMENT",
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            metadata_request("signature_def", "nope"),
            "INVALID_ARGUMENT",
            "Metadata field nope is not supported",
        ),
        (
            metadata_request("signature_def", name="none"),
            "NOT_FOUND",
            "Servable not found for request: Latest(none)",
        ),
    ],
)
def test_what_metadata_there_is_not(prediction, request_, code, message):
    assert failure(prediction.GetModelMetadata, request_) == (code, message)


def status_request(name: str = "toy", version: int | None = None) -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def test_status_lists_the_versions_newest_first(model):
    lines = model.GetModelStatus(status_request()).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(line.version, line.state, line.status.error_code) for line in lines] == [
        (2, available, 0),
        (1, available, 0),
    ]
    assert [line.version for line in model.GetModelStatus(status_request(version=1)).model_version_status] == [1]


def test_status_ignores_a_label(model):
    request = status_request()
    request.model_spec.version_label = "nolabel"
    assert len(model.GetModelStatus(request).model_version_status) == 2


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (get_model_status_pb2.GetModelStatusRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (status_request("none"), "NOT_FOUND", "Could not find any versions of model none"),
        (status_request(version=99), "NOT_FOUND", "Could not find version 99 of model toy"),
    ],
)
def test_what_has_no_status(model, request_, code, message):
    assert failure(model.GetModelStatus, request_) == (code, message)


def test_a_version_that_did_not_load_says_why(tmp_path, repository, service):
    (tmp_path / "3").mkdir()
    with (
        repository_over(tmp_path, copy_of=repository) as broken,
        asking(PredictionService(broken, service.metrics)) as channel,
    ):
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        newest, older = stub.GetModelStatus(status_request()).model_version_status
    assert (newest.version, newest.state) == (3, get_model_status_pb2.ModelVersionStatus.END)
    assert newest.status.error_code == Code.NOT_FOUND
    assert newest.status.error_message
    assert (older.version, older.state) == (2, get_model_status_pb2.ModelVersionStatus.AVAILABLE)


@contextmanager
def repository_over(base: Path, *, copy_of: ModelRepository) -> Iterator[ModelRepository]:
    with copy_of.lease(ModelSpec("toy")) as servable:
        (base / "2").symlink_to(servable.path)
    repository = ModelRepository([ModelSettings("toy", base)], Servable, poll_seconds=0)
    repository.start()
    try:
        yield repository
    finally:
        repository.close()


# --- the client packages ---


def test_ovmsclient_predicts_and_asks_for_status_and_metadata(server):
    # Without a version it asks for version 0, which TensorFlow Serving has not either.
    client = ovmsclient.make_grpc_client(f"127.0.0.1:{server.port}")
    outputs = client.predict({"a": np.float32([1, 2]), "b": np.int64([10, 20])}, "toy", model_version=2)
    np.testing.assert_array_equal(outputs["sum"], [22, 44])
    np.testing.assert_array_equal(outputs["double_b"], [20, 40])
    older = client.predict({"a": np.float32([1]), "b": np.int64([1])}, "toy", model_version=1)
    np.testing.assert_array_equal(older["sum"], [2])
    assert client.get_model_status("toy", 1) == {1: {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
    metadata = client.get_model_metadata("toy", model_version=2)
    assert metadata["model_version"] == 2
    assert metadata["inputs"]["b"] == {"shape": [-1], "dtype": "DT_INT64"}
    with pytest.raises(ovmsclient.tfs_compat.base.errors.ModelNotFoundError):
        client.predict({"a": np.float32([1])}, "none", model_version=1)


# --- what is counted ---


def counted(metrics: ServingMetrics, name: str) -> dict[tuple[str, ...], int]:
    """One counter of the exposition: the values of its labels, in their order -> count."""
    lines = re.findall(rf"^:tensorflow:serving:{name}{{(.*)}} (\S+)$", metrics.exposition().decode(), re.MULTILINE)
    return {tuple(re.findall('="([^"]*)"', labels)): int(float(value)) for labels, value in lines}


def test_every_request_is_counted_with_its_outcome(repository):
    metrics = ServingMetrics(repository)
    with asking(PredictionService(repository, metrics)) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(combine_request())
        stub.Predict(combine_request())
        failure(stub.Predict, predict_request("nope"))
        failure(stub.Predict, combine_request(name="none"))
        stub.GetModelMetadata(metadata_request("signature_def"))
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status_request())
    assert counted(metrics, "request_count") == {("toy", "OK"): 4, ("toy", "FAILED_PRECONDITION"): 1}
    assert counted(metrics, "request_latency_count") == {
        ("Predict", "GRPC", "toy"): 2,
        ("GetModelMetadata", "GRPC", "toy"): 1,
        ("GetModelStatus", "GRPC", "toy"): 1,
    }
    assert counted(metrics, "runtime_latency_count") == {("Predict", "toy", "TF1"): 2}
    assert b"\n:valence:requests_in_progress 0.0\n" in metrics.exposition()
    metrics.close()


# --- calls that are none ---


def test_an_unknown_method_is_unimplemented(channel):
    code, _ = failure(channel.unary_unary("/tensorflow.serving.PredictionService/Nope"), b"")
    assert code == "UNIMPLEMENTED"


def test_bytes_that_are_no_message_are_the_clients_mistake(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert failure(call, b"\xff\xff") == ("INVALID_ARGUMENT", "The message is no PredictRequest")


def test_a_call_without_a_message_is_the_clients_mistake(channel):
    call = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
    assert failure(call, iter([])) == ("INVALID_ARGUMENT", "The call has no request message")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), st.integers(0, 10_000))
def test_a_damaged_message_is_never_the_servers_mistake(channel, changes, end):
    message = bytearray(combine_request().SerializeToString())
    for position, byte in changes:
        message[position % len(message)] = byte
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    outcome = call.future(bytes(message[: max(end, 1)]), timeout=PATIENCE).code().name
    assert outcome in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
