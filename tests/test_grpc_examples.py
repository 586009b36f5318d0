"""Classify, Regress and MultiInference over gRPC, asked of the real server over a real channel."""

import re

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, inference_pb2, prediction_service_pb2_grpc, regression_pb2

from app.serving.grpc_api import GrpcServer
from app.serving.metrics import ServingMetrics
from app.serving.model_config import ModelSettings
from app.serving.repository import ModelRepository
from app.serving.servable import Servable
from app.serving.service import PredictionService

PATIENCE = 30  # seconds that a call may take
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
FEATURES = {"x": tf.io.FixedLenFeature([], tf.float32)}
STRINGS = [tf.TensorSpec([None], tf.string, name="inputs")]


class Toy(tf.Module):
    """A signature for each call."""

    @tf.function(input_signature=STRINGS)
    def classify(self, inputs):
        x = tf.io.parse_example(inputs, FEATURES)["x"]
        return {"classes": tf.tile([["low", "high"]], [tf.size(x), 1]), "scores": tf.stack([1 - x, x], axis=1)}

    @tf.function(input_signature=STRINGS)
    def regress(self, inputs):
        return {"outputs": 2 * tf.io.parse_example(inputs, FEATURES)["x"]}

    @tf.function(input_signature=STRINGS)
    def raw_labels(self, inputs):
        return {"classes": tf.fill([tf.size(inputs), 1], b"\xff")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def upper(self, text):
        return {"text": tf.strings.upper(text)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    base, toy = tmp_path_factory.mktemp("models") / "toy", Toy()
    names = ("classify", "regress", "raw_labels")
    signatures = {"serving_default": toy.upper} | {name: getattr(toy, name) for name in names}
    tf.saved_model.save(toy, str(base / "2"), signatures=signatures)
    repository = ModelRepository([ModelSettings("toy", base)], Servable, poll_seconds=0)
    repository.start()
    metrics = ServingMetrics()
    yield PredictionService(repository, metrics)
    metrics.close()
    repository.close()


@pytest.fixture(scope="module")
def prediction(service: PredictionService):
    server = GrpcServer(service, "127.0.0.1:0", max_rows=3)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    server.stop(PATIENCE)


def failure(call, request) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=PATIENCE)
    return caught.value.code().name, caught.value.details()


def example(**features: float) -> tf.train.Example:
    record = tf.train.Example()
    for name, value in features.items():
        record.features.feature[name].float_list.value.append(value)
    return record


def classify_request(*examples: tf.train.Example, signature: str = "classify"):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", signature
    request.input.example_list.examples.extend(examples)
    return request


def regress_request(*examples: tf.train.Example, signature: str = "regress"):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", signature
    request.input.example_list.examples.extend(examples)
    return request


def pairs(result: classification_pb2.ClassificationResult) -> list[list[tuple[str, float]]]:
    return [[(found.label, found.score) for found in answer.classes] for answer in result.classifications]


def test_classify_gives_a_label_and_a_score_for_each_class(prediction):
    response = prediction.Classify(classify_request(example(x=0.25), example(x=1)))
    assert pairs(response.result) == [[("low", 0.75), ("high", 0.25)], [("low", 0.0), ("high", 1.0)]]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("toy", "classify", 2)


def test_regress_gives_a_value_for_each_example(prediction):
    response = prediction.Regress(regress_request(example(x=0.25), example(x=1)))
    assert [found.value for found in response.result.regressions] == [0.5, 2.0]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("toy", "regress", 2)


def test_the_context_belongs_to_each_example_and_an_examples_own_feature_wins(prediction):
    request = regress_request()
    with_context = request.input.example_list_with_context
    with_context.context.CopyFrom(example(x=3, other=1))
    with_context.examples.extend([example(), example(x=1)])
    assert [found.value for found in prediction.Regress(request).result.regressions] == [6.0, 2.0]


def test_a_label_that_is_no_utf8_does_not_fail_the_answer(prediction):
    response = prediction.Classify(classify_request(example(), signature="raw_labels"))
    assert pairs(response.result) == [[("\ufffd", 0.0)]]


@pytest.mark.parametrize(
    ("call", "request_", "message"),
    [
        ("Classify", classification_pb2.ClassificationRequest(), "Missing ModelSpec"),
        ("Classify", classify_request(), "Input is empty."),
        ("Regress", regress_request(), "Input is empty."),
        ("Classify", classify_request(signature="nope"), "No signature was found with the name: nope"),
        (
            "Classify",
            classify_request(signature=""),
            "Expected classification signature method_name to be tensorflow/serving/classify."
            " Was: tensorflow/serving/predict",
        ),
        (
            "Regress",
            regress_request(signature="classify"),
            "Expected regression signature method_name to be tensorflow/serving/regress."
            " Was: tensorflow/serving/predict",
        ),
    ],
)
def test_what_cannot_be_classified_or_regressed(prediction, call, request_, message):
    assert failure(getattr(prediction, call), request_) == ("INVALID_ARGUMENT", message)


def inference_request(*tasks: tuple[str, str, str]) -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.append(example(x=0.25))
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    return request


def test_multi_inference_classifies_and_regresses_the_same_examples(prediction):
    request = inference_request(("toy", "classify", CLASSIFY), ("toy", "regress", REGRESS))
    classified, regressed = prediction.MultiInference(request).results
    assert pairs(classified.classification_result) == [[("low", 0.75), ("high", 0.25)]]
    assert [found.value for found in regressed.regression_result.regressions] == [0.5]
    assert [found.model_spec.signature_name for found in (classified, regressed)] == ["classify", "regress"]


@pytest.mark.parametrize(
    ("tasks", "code", "message"),
    [
        ([], "INVALID_ARGUMENT", "The request has no tasks"),
        ([("", "classify", CLASSIFY)], "INVALID_ARGUMENT", "Found ModelSpec with an empty model name."),
        (
            [("toy", "classify", CLASSIFY), ("other", "regress", REGRESS)],
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("toy", "classify", CLASSIFY), ("toy", "classify", REGRESS)],
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: classify",
        ),
        ([("toy", "classify", "other")], "UNIMPLEMENTED", "Unsupported signature method_name: other"),
    ],
)
def test_what_cannot_be_asked_at_once(prediction, tasks, code, message):
    assert failure(prediction.MultiInference, inference_request(*tasks)) == (code, message)


def test_a_request_has_no_more_examples_than_allowed(prediction):
    refused = ("INVALID_ARGUMENT", "The request has 4 rows: at most 3 are allowed; ask in several requests")
    four = [example(x=0)] * 4
    assert failure(prediction.Classify, classify_request(*four)) == refused
    assert failure(prediction.Regress, regress_request(*four)) == refused


def latencies(metrics: ServingMetrics, name: str) -> dict[str, int]:
    """How often each API is in a histogram of the exposition."""
    lines = re.findall(
        rf'^:tensorflow:serving:{name}_count{{API="(\w+)".*}} (\S+)$', metrics.exposition().decode(), re.M
    )
    return {api: int(float(value)) for api, value in lines}


def test_every_request_is_counted_by_its_api(prediction, service):
    before = latencies(service.metrics, "request_latency")
    prediction.Classify(classify_request(example(x=1)))
    prediction.Regress(regress_request(example(x=1)))
    prediction.MultiInference(inference_request(("toy", "classify", CLASSIFY)))
    failure(prediction.Classify, classify_request())
    after = latencies(service.metrics, "request_latency")
    apis = ("Classify", "Regress", "MultiInference")
    assert {api: after[api] - before.get(api, 0) for api in apis} == dict.fromkeys(apis, 1)
    assert set(latencies(service.metrics, "runtime_latency")) == {"Classify", "Regress"}
