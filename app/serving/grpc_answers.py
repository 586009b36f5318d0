"""The messages of TensorFlow Serving's gRPC APIs: a request in, the answer of the served models out.

Rules and words of the errors are TensorFlow Serving's (servables/tensorflow/predict_util.cc, multi_inference.cc,
get_model_metadata_impl.cc, model_servers/get_model_status_impl.cc) and TensorFlow's (cc/saved_model/util.cc).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from app.serving.examples import CLASSIFY_METHOD, REGRESS_METHOD, Classes, with_context
from app.serving.messages import TensorMessageError, read_tensor, signature_message, write_tensor
from app.serving.repository import ModelSpec
from app.serving.service import PredictionService, classify, predict, regress, too_many_rows
from app.serving.signatures import DEFAULT_SIGNATURE, INTERNAL, Signature, TensorInfo
from app.serving.status import Code, ServingError, invalid

_PREDICTION, _MODEL = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"


@dataclass(frozen=True)
class GrpcApi:
    """One method: its name in the metrics, the type of its requests, what answers them, and for which model.

    `answer(service, request, max_rows)` raises `ServingError`.
    """

    name: str
    request: type[Message]
    answer: Callable[[PredictionService, Any, int], Message]

    def model(self, request: Any) -> str:
        """The name of the model that a request is for."""
        if isinstance(request, inference_pb2.MultiInferenceRequest):
            return request.tasks[0].model_spec.name if request.tasks else ""
        name: str = request.model_spec.name
        return name


def answer_predict(
    service: PredictionService, request: predict_pb2.PredictRequest, max_rows: int
) -> predict_pb2.PredictResponse:
    """Run a signature on the tensors of the request; `output_filter` chooses among the outputs."""
    spec = _spec(request)
    with service.lease(spec) as servable:
        signature = _predict_signature(servable.signatures, request.model_spec.signature_name)
        inputs = _read_inputs(signature, request.inputs)
        _check_rows((len(array) for array in inputs.values() if array.ndim), max_rows)
        names = _wanted_outputs(signature, request.output_filter)
        with service.timed(spec.name, "Predict"):
            outputs = predict(servable, signature, inputs)
        service.metrics.answered(spec.name, servable, inputs, outputs)
        response = predict_pb2.PredictResponse(model_spec=_answered_by(spec, servable.version, signature.name))
    for name in names:
        write_tensor(outputs[name], signature.outputs[name].dtype, response.outputs[name])
    return response


def answer_classify(
    service: PredictionService, request: classification_pb2.ClassificationRequest, max_rows: int
) -> classification_pb2.ClassificationResponse:
    """Give the classes of each tf.Example."""
    spec, name = _spec(request), request.model_spec.signature_name
    with service.lease(spec) as servable:
        examples = _examples(request.input, max_rows)
        with service.timed(spec.name, "Classify"):
            found = classify(servable, name, examples)
        answered_by = _answered_by(spec, servable.version, name)
    return classification_pb2.ClassificationResponse(model_spec=answered_by, result=_classification(found))


def answer_regress(
    service: PredictionService, request: regression_pb2.RegressionRequest, max_rows: int
) -> regression_pb2.RegressionResponse:
    """Give the value of each tf.Example."""
    spec, name = _spec(request), request.model_spec.signature_name
    with service.lease(spec) as servable:
        examples = _examples(request.input, max_rows)
        with service.timed(spec.name, "Regress"):
            found = regress(servable, name, examples)
        answered_by = _answered_by(spec, servable.version, name)
    return regression_pb2.RegressionResponse(model_spec=answered_by, result=_regression(found))


def answer_multi_inference(
    service: PredictionService, request: inference_pb2.MultiInferenceRequest, max_rows: int
) -> inference_pb2.MultiInferenceResponse:
    """Classify and regress the same examples with several signatures of one model."""
    _check_tasks(request.tasks)
    spec, response = _spec(request.tasks[0]), inference_pb2.MultiInferenceResponse()
    with service.lease(spec) as servable:
        for task in request.tasks:
            name = task.model_spec.signature_name
            result = response.results.add(model_spec=_answered_by(spec, servable.version, name))
            examples = _examples(request.input, max_rows)
            if task.method_name == CLASSIFY_METHOD:
                result.classification_result.CopyFrom(_classification(classify(servable, name, examples)))
            else:
                result.regression_result.CopyFrom(_regression(regress(servable, name, examples)))
    return response


def answer_metadata(
    service: PredictionService, request: get_model_metadata_pb2.GetModelMetadataRequest, _: int
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Describe the model's signatures: `metadata_field` has to be `signature_def`, there is no other."""
    spec = _spec(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise invalid(f"Metadata field {field} is not supported")
    metadata = service.metadata(spec)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, as_json in metadata.signature_def.items():
        signatures.signature_def[name].CopyFrom(signature_message(as_json))
    response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_answered_by(spec, metadata.version))
    response.metadata["signature_def"].Pack(signatures)
    return response


def answer_status(
    service: PredictionService, request: get_model_status_pb2.GetModelStatusRequest, _: int
) -> get_model_status_pb2.GetModelStatusResponse:
    """List the versions of a model and their states, newest first."""
    response = get_model_status_pb2.GetModelStatusResponse()
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    wanted = request.model_spec
    version = wanted.version.value if wanted.HasField("version") else None
    for status in service.statuses(ModelSpec(wanted.name, version)):
        line = response.model_version_status.add(version=status.version)
        line.state = get_model_status_pb2.ModelVersionStatus.State.Value(status.state)
        line.status.error_code, line.status.error_message = status.code.value, status.message
    return response


APIS = {
    f"{_PREDICTION}/Predict": GrpcApi("Predict", predict_pb2.PredictRequest, answer_predict),
    f"{_PREDICTION}/Classify": GrpcApi("Classify", classification_pb2.ClassificationRequest, answer_classify),
    f"{_PREDICTION}/Regress": GrpcApi("Regress", regression_pb2.RegressionRequest, answer_regress),
    f"{_PREDICTION}/MultiInference": GrpcApi(
        "MultiInference", inference_pb2.MultiInferenceRequest, answer_multi_inference
    ),
    f"{_PREDICTION}/GetModelMetadata": GrpcApi(
        "GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest, answer_metadata
    ),
    f"{_MODEL}/GetModelStatus": GrpcApi("GetModelStatus", get_model_status_pb2.GetModelStatusRequest, answer_status),
}


def _spec(request: Any) -> ModelSpec:
    """Which model a request (or a task of one) is for."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        return ModelSpec(spec.name, label=spec.version_label)
    return ModelSpec(spec.name, spec.version.value if choice == "version" else None)


def _answered_by(spec: ModelSpec, version: int, signature_name: str | None = None) -> model_pb2.ModelSpec:
    """Name the version that answers, whatever the client called it; None is for an answer of no one signature."""
    answered_by = model_pb2.ModelSpec(name=spec.name)
    answered_by.version.value = version
    if signature_name is not None:
        answered_by.signature_name = signature_name or DEFAULT_SIGNATURE
    return answered_by


def _predict_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    # Not as REST has it, which looks at the inputs that it is to read from the JSON first.
    name = name or DEFAULT_SIGNATURE
    if name not in signatures or name.startswith(INTERNAL):
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return signatures[name]


def _read_inputs(signature: Signature, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    _check_names(signature, tensors)
    # The position that a wrong type's error tells is among the names of the graph's own inputs.
    positions = sorted(info.name for info in signature.inputs.values())
    inputs = {}
    for name, info in sorted(signature.inputs.items()):
        try:
            inputs[name] = read_tensor(tensors[name])
        except TensorMessageError as error:
            raise invalid(f"tensor parsing error: {name}") from error
        _check_type(tensors[name].dtype, info, positions.index(info.name))
    return inputs


def _check_names(signature: Signature, tensors: Mapping[str, Any]) -> None:
    sent, declared = set(tensors), set(signature.inputs)
    if len(sent) != len(declared):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(declared)} len({_listed(sent)}) !="
            f" len({_listed(declared)}). Sent extra: {_listed(sent - declared)}."
            f" Missing but required: {_listed(declared - sent)}."
        )
    if missing := sorted(declared - sent):
        name = missing[0]
        raise invalid(
            f"Signature input alias: {name}(feed name: {signature.inputs[name].name}) not found in request and no"
            f" default value provided. Inputs expected to be in the request {_listed(sent)}, or default input alias"
            " set: "
        )


def _check_type(sent: int, declared: TensorInfo, position: int) -> None:
    if sent != types_pb2.DataType.Value(declared.dtype):
        expected, given = _type_text(declared.dtype), _type_text(types_pb2.DataType.Name(sent))
        raise invalid(f"Expects arg[{position}] to be {expected} but {given} is provided")


def _type_text(dtype: str) -> str:
    return dtype.removeprefix("DT_").lower()


def _listed(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _wanted_outputs(signature: Signature, output_filter: Iterable[str]) -> list[str]:
    names: list[str] = []
    for name in output_filter:
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set"
                f" {_listed(signature.outputs)}."
            )
        if name in names:
            raise invalid(f"duplicate output tensor alias: {name}")
        names.append(name)
    return names or list(signature.outputs)


def _examples(wanted: input_pb2.Input, max_rows: int) -> list[bytes]:
    """Serialized examples of a request, each with the features of the context, if there is one."""
    context = b""
    examples = wanted.example_list.examples
    if wanted.WhichOneof("kind") == "example_list_with_context":
        context = wanted.example_list_with_context.context.SerializeToString()
        examples = wanted.example_list_with_context.examples
    _check_rows([len(examples)], max_rows)
    return [with_context(context, example.SerializeToString()) for example in examples]


def _check_rows(counts: Iterable[int], max_rows: int) -> None:
    rows = max(counts, default=0)
    if rows > max_rows:
        raise too_many_rows(rows, max_rows)


def _check_tasks(tasks: Any) -> None:
    if not tasks:
        raise invalid("The request has no tasks")
    if not all(task.model_spec.name for task in tasks):
        raise invalid("Found ModelSpec with an empty model name.")
    if len({task.model_spec.name for task in tasks}) > 1:
        raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    seen = set()
    for task in tasks:
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        if task.method_name not in (CLASSIFY_METHOD, REGRESS_METHOD):
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")


def _classification(results: list[Classes]) -> classification_pb2.ClassificationResult:
    message = classification_pb2.ClassificationResult()
    for classes in results:
        answer = message.classifications.add()
        for label, score in classes:
            # A message's text is UTF-8, which a label need not be.
            text = (label or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            answer.classes.add(label=text, score=score or 0.0)
    return message


def _regression(values: list[float]) -> regression_pb2.RegressionResult:
    message = regression_pb2.RegressionResult()
    for value in values:
        message.regressions.add(value=value)
    return message
