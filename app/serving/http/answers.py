"""The bodies of TensorFlow Serving's REST API: a request's JSON in, an answer's JSON out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from app.serving.http.examples_json import read_examples, write_classifications, write_regressions
from app.serving.http.json_text import parse_object
from app.serving.http.quoting import pretty
from app.serving.http.tensors import read_inputs, write_outputs
from app.serving.repository import ModelSpec
from app.serving.service import (
    PredictionService,
    classify,
    find_signature,
    predict,
    regress,
    too_many_rows,
)
from app.serving.signatures import DEFAULT_SIGNATURE
from app.serving.status import invalid


def answer_predict(service: PredictionService, spec: ModelSpec, body: bytes, max_rows: int) -> str:
    """Predict, rows or columns, with whatever inputs and outputs the signature declares."""
    document = parse_object(body)
    name = _signature_name(document)
    instances = document.get("instances")
    if isinstance(instances, list) and len(instances) > max_rows:  # before anything is made of them
        raise too_many_rows(len(instances), max_rows)
    with service.lease(spec) as servable:
        signature = find_signature(servable, name)
        inputs, by_row = read_inputs(document, signature.inputs)
        _check_rows(inputs, max_rows)
        with service.timed(spec.name, "Predict"):
            outputs = predict(servable, signature, inputs)
        service.metrics.answered(spec.name, servable, inputs, outputs)
    return write_outputs(outputs, rows=by_row)


def answer_examples(service: PredictionService, spec: ModelSpec, body: bytes, verb: str, max_rows: int) -> str:
    """Classify or regress tf.Example records with a signature that was made for them."""
    document = parse_object(body)
    name = _signature_name(document) or DEFAULT_SIGNATURE
    examples = read_examples(document)
    if len(examples) > max_rows:
        raise too_many_rows(len(examples), max_rows)
    with service.lease(spec) as servable:
        if verb == "classify":
            with service.timed(spec.name, "Classify"):
                return write_classifications(classify(servable, name, examples))
        with service.timed(spec.name, "Regress"):
            return write_regressions(regress(servable, name, examples))


def answer_status(service: PredictionService, spec: ModelSpec) -> str:
    """The model's versions and their states."""
    versions = [
        {
            "version": str(status.version),
            "state": status.state,
            "status": {"error_code": status.code.name, "error_message": status.message},
        }
        for status in service.statuses(spec)
    ]
    return pretty({"model_version_status": versions})


def answer_metadata(service: PredictionService, spec: ModelSpec) -> str:
    """The model's signatures."""
    with service.lease(spec) as servable:
        return pretty(
            {
                "model_spec": {"name": spec.name, "signature_name": "", "version": str(servable.version)},
                "metadata": {"signature_def": {"signature_def": servable.signature_def}},
            }
        )


def answer_error(message: str) -> bytes:
    """An error's body; what it quotes of a request need not be UTF-8, but its reader should not stumble over it."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")


def _signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {pretty(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def _check_rows(inputs: Mapping[str, np.ndarray], max_rows: int) -> None:
    rows = max((len(array) for array in inputs.values() if array.ndim), default=0)
    if rows > max_rows:
        raise too_many_rows(rows, max_rows)
