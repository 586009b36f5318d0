"""The JSON of classify and regress, by the rules of TensorFlow Serving's REST API (util/json_tensor.cc)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.serving.examples import Classes, with_context
from app.serving.http.float_text import write_floats
from app.serving.http.json_text import PASS_BYTES
from app.serving.http.quoting import pretty
from app.serving.http.tensors import decode_base64, is_base64, json_type
from app.serving.status import ServingError, invalid

# A feature's values are all of one kind: where JSON puts them, and that kind's name in an error.
_KINDS = {bool: "int64", int: "int64", float: "float", str: "bytes", dict: "bytes"}
_INT64_LIMIT = 2**63


def read_examples(document: Mapping[str, Any]) -> list[bytes]:
    """The serialized tf.Example records of a request: its `examples`, each with the features of its `context`.

    Whole numbers, true and false become int64, other numbers float, strings and `{"b64": ...}` bytes. Raises
    `ServingError`, worded as TensorFlow Serving words it.
    """
    context = _read_example(document["context"]) if "context" in document else b""
    if "examples" not in document:
        raise _malformed(document, "When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _malformed(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _malformed(document, "'examples' value is an empty array")
    return [with_context(context, _read_example(example)) for example in examples]


def write_classifications(results: Sequence[Classes]) -> str:
    """The JSON of a classify answer: for each example a list of `[label, score]`; what is missing is `""` or 0."""
    return f'{{"results": [{", ".join(map(_write_classes, results))}]}}'


def write_regressions(values: Sequence[float]) -> str:
    """The JSON of a regress answer: a number for each example."""
    return f'{{"results": [{", ".join(write_floats(np.array(values, np.float32)))}]}}'


def _write_classes(classes: Classes) -> str:
    scores = write_floats(np.array([score or 0.0 for _, score in classes], np.float32))
    labels = [json.dumps(label or "", ensure_ascii=False) for label, _ in classes]
    return f"[{', '.join(f'[{label}, {score}]' for label, score in zip(labels, scores, strict=True))}]"


def _malformed(document: Mapping[str, Any], problem: str) -> ServingError:
    return invalid(f"JSON Value: {pretty(document)} {problem}")


def _read_example(value: Any) -> bytes:
    # All of TensorFlow comes with its messages: not before a request needs them.
    from tensorflow.core.example import example_pb2

    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        try:
            feature = example.features.feature[name]
        except UnicodeEncodeError as error:
            raise invalid("A feature's name is not UTF-8") from error
        _fill(feature, name, content if isinstance(content, list) else [content])
    serialized: bytes = example.SerializeToString()
    return serialized


def _fill(feature: Any, name: str, values: Sequence[Any]) -> None:
    kind = _common_kind(name, values)
    if kind == "bytes":
        feature.bytes_list.value.extend(map(_bytes, values))
    elif kind == "float":
        feature.float_list.value.extend(values)
    elif kind == "int64":
        feature.int64_list.value.extend(map(int, values))  # true and false too


def _common_kind(name: str, values: Sequence[Any]) -> str | None:
    """The kind of all values, None for an empty list: it makes a feature without one."""
    common = None
    for value in values:
        kind = _kind(name, value)
        common = common or kind
        if kind != common:
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {common}")
        if kind == "int64" and value >= _INT64_LIMIT:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    return common


def _kind(name: str, value: Any) -> str:
    kind = _KINDS.get(type(value))
    if kind is None or (isinstance(value, dict) and not is_base64(value)):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")
    return kind


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", PASS_BYTES) if isinstance(value, str) else decode_base64(value)
