"""A SavedModel with every kind of input that the contract knows, small enough to be asked thousands of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NAME = "toy"
# Signature -> its inputs: dtype and shape. What the requests are made from.
INPUTS: dict[str, dict[str, tuple[str, tuple[int | None, ...] | None]]] = {
    "serving_default": {"text": ("string", (None,))},
    "two": {"a": ("float32", (None,)), "b": ("int64", (None,))},
    "matrix": {"x": ("float32", (None, 2))},
    "cube": {"x": ("float64", (None, None, 3))},
    "flags": {"flag": ("bool", (None,)), "count": ("int32", (None,))},
    "short": {"i8": ("int8", (None,)), "u8": ("uint8", (None,)), "i16": ("int16", (None,))},
    "unsigned": {"u32": ("uint32", (None,)), "u64": ("uint64", (None,))},
    "scalar": {"text": ("string", ())},
    "any_rank": {"x": ("float32", None)},
    "as_bytes": {"text": ("string", (None,))},
    "half": {"x": ("float32", (None,))},
    "positive": {"x": ("float32", (None,))},
    "total": {"x": ("float32", (None,))},
}
EXAMPLES = {"classes": "classify", "values": "regress"}


def write_model(version: Path) -> None:
    """Write the SavedModel into a version folder that does not exist yet."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        signatures = {name: _signature(tf, name, inputs) for name, inputs in INPUTS.items()}
        signatures |= _example_signatures(tf)
        builder = tf1.saved_model.Builder(str(version))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def _signature(tf: Any, name: str, declared: Mapping[str, tuple[str, Any]]) -> Any:
    inputs = {key: tf.compat.v1.placeholder(dtype, shape) for key, (dtype, shape) in declared.items()}
    outputs = _GRAPHS.get(name, _echo)(tf, inputs)
    return tf.compat.v1.saved_model.predict_signature_def(inputs, outputs)


def _echo(tf: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{key}_again": tf.identity(value) for key, value in inputs.items()}


def _classify(tf: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    length = tf.cast(tf.strings.length(inputs["text"]), tf.float32)[:, tf.newaxis]
    probabilities = tf.concat([1 / (1 + length), length / (1 + length)], axis=1)
    labels = tf.gather(tf.constant(["short", "long"]), tf.argmax(probabilities, axis=1))
    return {"label": labels, "probabilities": probabilities, "confidence": tf.reduce_max(probabilities, axis=1)}


def _positive(tf: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    with tf.control_dependencies([tf.debugging.assert_positive(inputs["x"])]):
        return _echo(tf, inputs)


_GRAPHS: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    "serving_default": _classify,
    "two": lambda tf, inputs: {"sum": inputs["a"] + tf.cast(inputs["b"], tf.float32)},  # fails where lengths differ
    "as_bytes": lambda tf, inputs: {"raw_bytes": tf.identity(inputs["text"])},
    "half": lambda tf, inputs: {"y": tf.cast(inputs["x"], tf.float16)},
    "positive": _positive,
    "total": lambda tf, inputs: {"y": tf.reduce_sum(inputs["x"])},
}


def _example_signatures(tf: Any) -> dict[str, Any]:
    tf1 = tf.compat.v1
    serialized = tf1.placeholder(tf.string, [None])
    features = {
        "x": tf.io.FixedLenFeature([], tf.float32, default_value=0.0),
        "word": tf.io.FixedLenFeature([], tf.string, default_value=""),
        "ids": tf.io.VarLenFeature(tf.int64),
    }
    x = tf.io.parse_example(serialized, features)["x"]
    scores = tf.stack([x, 1 - x], axis=1)
    classes = tf.tile(tf.constant([["one", "other"]]), [tf.shape(x)[0], 1])
    make = tf1.saved_model
    return {
        "classes": make.classification_signature_def(serialized, classes, scores),
        "values": make.regression_signature_def(serialized, x),
    }
