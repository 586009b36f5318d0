"""A trained run as a SavedModel: raw text in, labels and probabilities out, tokenisation inside the graph."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from app.serving.verification import EXTRA_FOLDER, GOLDEN_FILE, WARMUP_FILE
from app.training import TrainedRun
from data.vocabulary import UNK_ID

GOLDEN_TEXTS = 64
WARMUP_BATCHES = (1, 8, 32)  # texts a request: a first request of any of these sizes finds everything traced


def publish(written: Path, base: Path) -> Path:
    """Move a finished SavedModel folder to the next integer below `base`; whole or not at all."""
    for path in (*written.rglob("*"), written):
        _fsync(path)
    while True:
        version = base / str(1 + max((int(path.name) for path in base.iterdir() if path.name.isdecimal()), default=0))
        try:
            written.rename(version)
        except OSError:
            if not version.exists():
                raise
            continue  # another process took this number
        _fsync(base)
        return version


def write_saved_model(run: TrainedRun, folder: Path, model_name: str) -> None:
    """Write the SavedModel with its golden answers and warm-up records inside `assets.extra`."""
    archive = keras.export.ExportArchive()
    archive.track(run.model)
    for name, make_endpoint in SIGNATURES.items():
        archive.add_endpoint(name, make_endpoint(run))
    archive.write_out(str(folder), verbose=False)
    extra = folder / EXTRA_FOLDER
    extra.mkdir()
    (extra / GOLDEN_FILE).write_text(json.dumps(golden_answers(run), ensure_ascii=False), encoding="utf-8")
    write_warmup(extra / WARMUP_FILE, model_name, run.material.splits.test.texts)


def classify_endpoint(run: TrainedRun) -> Any:
    """Return the function of `serving_default`.

    `text` string[batch] -> `label` string[batch], `confidence` float32[batch], `probabilities` float32[batch, classes],
    `classes` string[batch, classes].
    """
    tokenizer = run.material.datasets.tokenizer
    label_names = tf.constant(run.material.splits.label_names)
    temperature = tf.constant(run.temperature, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(text: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(text)[0]
        # An LSTM cannot run on no rows at all; a request without texts gets the answer to one text, cut to none.
        some = tf.cond(rows > 0, lambda: text, lambda: tf.constant([""]))
        logits = tf.cast(run.model(tokenizer(some), training=False), tf.float32)[:rows]
        probabilities = tf.nn.softmax(logits / temperature)
        classes = tf.broadcast_to(label_names, [rows, len(run.material.splits.label_names)])
        return {
            "label": tf.gather(label_names, tf.argmax(probabilities, axis=1)),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
            "classes": classes,
        }

    return classify


def statistics_endpoint(run: TrainedRun) -> Any:
    """Return the function of `text_statistics`: what the model sees of each text, for monitoring.

    `text` string[batch] -> `num_tokens` int32[batch] before truncation, `[CLS]` not counted; `unknown_share`
    float32[batch], the share of `[UNK]` among them, 0 for no tokens; `truncated` bool[batch].
    """
    tokenizer = run.material.datasets.tokenizer

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def text_statistics(text: tf.Tensor) -> dict[str, tf.Tensor]:
        pieces = tokenizer.pieces(text)
        lengths = tf.cast(pieces.row_lengths(), tf.int32)
        unknown = tf.reduce_sum(tf.cast(pieces == UNK_ID, tf.float32), axis=1)
        return {
            "num_tokens": lengths - 1,
            "unknown_share": tf.math.divide_no_nan(unknown, tf.cast(lengths - 1, tf.float32)),
            "truncated": lengths > tokenizer.config.sequence_length,
        }

    return text_statistics


SIGNATURES: dict[str, Callable[[TrainedRun], Any]] = {
    "serving_default": classify_endpoint,
    "text_statistics": statistics_endpoint,
}


def golden_answers(run: TrainedRun) -> dict[str, Any]:
    """Texts of the test split with the probabilities that were evaluated, for `verify` to hold the export against."""
    splits, probabilities = run.material.splits, run.test_probabilities
    count = min(GOLDEN_TEXTS, len(splits.test.texts))
    rows = np.sort(np.random.default_rng(run.config.seed).choice(len(splits.test.texts), count, replace=False))
    return {
        "label_names": list(splits.label_names),
        "texts": [splits.test.texts[row] for row in rows],
        "labels": [splits.label_names[label_id] for label_id in probabilities[rows].argmax(axis=1)],
        "probabilities": probabilities[rows].tolist(),
    }


def write_warmup(path: Path, name: str, texts: Sequence[str]) -> None:
    """Write what TensorFlow Serving replays before it calls a version available: a TFRecord of PredictionLog."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in WARMUP_BATCHES:
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name="serving_default"),
                inputs={"text": tf.make_tensor_proto([texts[row % len(texts)] for row in range(size)], tf.string)},
            )
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
