"""The SavedModels that the cases speak of, and the configuration files of a server for them.

    python -m conformance.toy_models FOLDER         (in tests/)

writes them where a TensorFlow Serving that is started by hand can take them from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
DTYPES = (
    *(tf.bool, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint32, tf.uint64),
    *(tf.float32, tf.float64, tf.string),
)
# Names that are no versions, however much they look like one.
NO_VERSIONS = ("v9", "9.5")
FEATURES = {
    "x": tf.io.FixedLenFeature([], tf.float32),
    "bias": tf.io.FixedLenFeature([], tf.float32, 0.0),
    "word": tf.io.FixedLenFeature([], tf.string, ""),
}

MODEL_CONFIG = """model_config_list {{
  config {{ name: "toy" base_path: "{folder}/toy" model_platform: "tensorflow" model_version_policy {{ all {{}} }} }}
  config {{ name: "examples" base_path: "{folder}/examples" model_platform: "tensorflow" }}
  config {{
    name: "two versions"
    base_path: "{folder}/two versions"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: 2 }}
  }}
}}
"""
BATCHING = """max_batch_size { value: 8 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 1 }
num_batch_threads { value: 1 }
allowed_batch_sizes: 2
allowed_batch_sizes: 8
"""
MONITORING = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'


def spec(dtype: tf.DType, *shape: int | None, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name=name)


class Toy(tf.Module):
    """A signature for each thing that predictions can meet."""

    @tf.function(input_signature=[spec(tf.string, None, name="text")])
    def lengths(self, text):
        length = tf.cast(tf.strings.length(text), tf.float32)
        probabilities = tf.stack([1 / (1 + length), length / (1 + length)], axis=1)
        names = tf.constant(["short", "long"])
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
            "classes": tf.broadcast_to(names, tf.shape(probabilities)),
        }

    @tf.function(input_signature=[spec(tf.float32, None, name="a"), spec(tf.int64, None, name="b")])
    def two(self, a, b):
        return {"sum": a + tf.cast(b, tf.float32), "double_b": b * 2}

    @tf.function(input_signature=[spec(tf.float32, None, 2, name="x")])
    def matrix(self, x):
        return {"y": 2 * x}

    @tf.function(input_signature=[spec(tf.int32, None, None, None, name="x")])
    def cube(self, x):
        return {"y": x + 1}

    @tf.function(input_signature=[spec(tf.string, None, name="text")])
    def as_bytes(self, text):
        return {"raw_bytes": tf.identity(text)}

    @tf.function(input_signature=[spec(tf.string, None, name="image_bytes")])
    def both_ways(self, image_bytes):
        return {"image_bytes": tf.identity(image_bytes), "size": tf.strings.length(image_bytes)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x_bytes")])
    def number_bytes(self, x_bytes):
        return {"y_bytes": tf.identity(x_bytes)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def total(self, x):
        return {"y": tf.reduce_sum(x)}

    @tf.function(input_signature=[spec(tf.string, name="text")])
    def scalar(self, text):
        return {"length": tf.strings.length(text), "text": tf.strings.upper(text)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def bfloat16(self, x):
        return {"y": tf.cast(x, tf.bfloat16)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def half(self, x):
        return {"y": tf.cast(x, tf.float16)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def positive(self, x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="not positive")]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def uneven(self, x):
        return {"all": tf.identity(x), "less": x[1:]}

    @tf.function(input_signature=[spec(tf.string, name="path")])
    def read(self, path):
        return {"content": tf.io.read_file(path)}

    @tf.function(input_signature=[spec(tf.int64, name="size")])
    def room(self, size):
        return {"sum": tf.reduce_sum(tf.random.uniform(size[None]))}

    @tf.function(input_signature=[spec(tf.string, name="packed")])
    def unpack(self, packed):
        return {"text": tf.io.decode_compressed(packed, compression_type="ZLIB")}

    @tf.function(input_signature=[spec(tf.int64, name="count")])
    def first(self, count):
        return {"item": next(iter(tf.data.Dataset.range(count)))}

    @tf.function(input_signature=[spec(tf.int64, None, name="steps")])
    def slow(self, steps):
        """Count up to the largest of `steps`: as long as one likes, and no memory."""
        last = tf.reduce_max(steps)
        counted = tf.while_loop(lambda step: step < last, lambda step: (step + 1,), (tf.constant(0, tf.int64),))
        return {"steps": tf.minimum(steps, counted[0])}


class Examples(tf.Module):
    """Signatures for classify and regress."""

    @tf.function(input_signature=[spec(tf.string, None, name="inputs")])
    def classes(self, inputs):
        x = self._value(inputs)
        return {"classes": tf.tile([["low", "high"]], [tf.size(x), 1]), "scores": tf.stack([1 - x, x], axis=1)}

    @tf.function(input_signature=[spec(tf.string, None, name="inputs")])
    def classes_only(self, inputs):
        return {"classes": tf.io.parse_example(inputs, FEATURES)["word"][:, None]}

    @tf.function(input_signature=[spec(tf.string, None, name="inputs")])
    def scores_only(self, inputs):
        return {"scores": self._value(inputs)[:, None]}

    @tf.function(input_signature=[spec(tf.string, None, name="inputs")])
    def value(self, inputs):
        return {"outputs": self._value(inputs)}

    @tf.function(input_signature=[spec(tf.string, None, name="inputs")])
    def column(self, inputs):
        return {"outputs": self._value(inputs)[:, None]}

    def _value(self, inputs):
        features = tf.io.parse_example(inputs, FEATURES)
        return features["x"] + features["bias"]


class Version(tf.Module):
    """Answers with its version."""

    def __init__(self, number: int) -> None:
        self.number = tf.Variable(number)

    @tf.function(input_signature=[spec(tf.string, None, name="text")])
    def number_of(self, text):
        return {"version": tf.fill([tf.size(text)], self.number)}


def same(dtype: tf.DType) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A signature that gives back what it gets."""

    @tf.function(input_signature=[spec(dtype, None, name="x")])
    def identity(x):
        return {"y": tf.identity(x)}

    return identity


PREDICT_SIGNATURES = (
    *("two", "matrix", "cube", "as_bytes", "both_ways", "number_bytes", "total", "scalar", "bfloat16", "half"),
    *("positive", "uneven", "read", "room", "unpack", "first", "slow"),
)


def write_models(folder: Path) -> None:
    """Write the models and, beside them, the configuration files that name them."""
    toy = Toy()
    signatures = {name: getattr(toy, name) for name in PREDICT_SIGNATURES} | {
        dtype.name: same(dtype) for dtype in DTYPES
    }
    _save(toy, folder / "toy" / "3", {"serving_default": toy.lengths, **signatures})
    for name in NO_VERSIONS:
        (folder / "toy" / name).mkdir()
    for number in (1, 2):
        version = Version(number)
        _save(version, folder / "two versions" / str(number), {"serving_default": version.number_of})
    _write_examples(folder / "examples" / "1")
    for name, text in (
        ("models.config", MODEL_CONFIG.format(folder=folder)),
        ("batching.config", BATCHING),
        ("monitoring.config", MONITORING),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def _write_examples(path: Path) -> None:
    module = Examples()
    classifiers = {"serving_default": module.classes, "classes_only": module.classes_only}
    classifiers["scores_only"] = module.scores_only
    regressors = {"value": module.value, "column": module.column}
    _save(module, path, classifiers | regressors)
    set_methods(path, dict.fromkeys(classifiers, CLASSIFY) | dict.fromkeys(regressors, REGRESS))


def _save(module: tf.Module, path: Path, signatures: Mapping[str, Any]) -> None:
    tf.saved_model.save(module, str(path), signatures=signatures)


def set_methods(version: Path, methods: Mapping[str, str]) -> None:
    """Say in the file which API each signature is for: tf.saved_model.save writes predict for all of them."""
    file = version / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name, method in methods.items():
        saved.meta_graphs[0].signature_def[name].method_name = method
    file.write_bytes(saved.SerializeToString())


if __name__ == "__main__":
    write_models(Path(sys.argv[1]).resolve())
