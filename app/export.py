"""A trained run as a SavedModel: raw text in, labels and probabilities out, tokenisation inside the graph."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from app.conformal import SCORE, prediction_sets
from app.serving.calibration import CALIBRATION_FILE, SETS_SIGNATURE, TEMPERATURE_NODE, THRESHOLD_NODE, Calibration
from app.serving.reading import READING_FILE, Reading
from app.serving.signatures import DEFAULT_SIGNATURE
from app.serving.verification import EXTRA_FOLDER, GOLDEN_FILE, WARMUP_FILE
from app.training import TrainedRun, reads_windows
from data.vocabulary import UNK_ID
from models import MODELS

GOLDEN_TEXTS = 64
WARMUP_BATCHES = (1, 8, 32)  # texts a request: a first request of any of these sizes finds everything traced
WARMED_SIGNATURES = (DEFAULT_SIGNATURE, SETS_SIGNATURE)


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
    """Write the SavedModel with its golden answers, calibration, reading and warm-up records inside `assets.extra`."""
    archive = keras.export.ExportArchive()
    archive.track(run.model)
    for name, make_endpoint in SIGNATURES.items():
        archive.add_endpoint(name, make_endpoint(run))
    archive.write_out(str(folder), verbose=False)
    extra = folder / EXTRA_FOLDER
    extra.mkdir()
    (extra / GOLDEN_FILE).write_text(json.dumps(golden_answers(run), ensure_ascii=False), encoding="utf-8")
    (extra / CALIBRATION_FILE).write_text(json.dumps(dataclasses.asdict(calibration(run))), encoding="utf-8")
    (extra / READING_FILE).write_text(json.dumps(dataclasses.asdict(reading(run))), encoding="utf-8")
    write_warmup(extra / WARMUP_FILE, model_name, run.material.splits.test.texts, WARMED_SIGNATURES)


def classify_endpoint(run: TrainedRun) -> Any:
    """Return the function of `serving_default`.

    `text` string[batch] -> `label` string[batch], `confidence` float32[batch], `probabilities` float32[batch, classes],
    `classes` string[batch, classes].
    """
    answer = _classifier(run)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(text)

    return classify


def sets_endpoint(run: TrainedRun) -> Any:
    """Return the function of `predict_set`: the labels that are likely enough, see `app.conformal`.

    `text` string[batch] -> what `serving_default` gives, and `in_set` bool[batch, classes] in the order of `classes`,
    `label_set` string[batch, classes], the labels of the set, likeliest first, then empty strings, `set_size`
    int32[batch], `abstain` bool[batch]: whether the set holds another number of labels than one.
    """
    answer = _classifier(run)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def predict_set(text: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = answer(text)
        probabilities = outputs["probabilities"]
        order = tf.argsort(probabilities, direction="DESCENDING", stable=True)
        likeliest = tf.one_hot(order[:, 0], probabilities.shape[1], on_value=True, off_value=False)
        in_set = (probabilities >= tf.constant(run.conformal_threshold, tf.float32, name=THRESHOLD_NODE)) | likeliest
        names, members = (tf.gather(columns, order, batch_dims=1) for columns in (outputs["classes"], in_set))
        size = tf.math.count_nonzero(in_set, axis=1, dtype=tf.int32)
        sets = {"in_set": in_set, "label_set": tf.where(members, names, ""), "set_size": size, "abstain": size != 1}
        return {**outputs, **sets}

    return predict_set


def _classifier(run: TrainedRun) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Return what every signature that classifies computes first: the outputs of `serving_default`."""
    tokenizer, label_names = run.material.datasets.tokenizer, run.material.splits.label_names

    def answer(text: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(text)[0]
        # An LSTM cannot run on no rows at all; a request without texts gets the answer to one text, cut to none.
        some = tf.cond(rows > 0, lambda: text, lambda: tf.constant([""]))
        logits = tf.cast(run.model(tokenizer(some), training=False), tf.float32)[:rows]
        probabilities = tf.nn.softmax(logits / tf.constant(run.temperature, tf.float32, name=TEMPERATURE_NODE))
        names = tf.constant(label_names)
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
            "classes": tf.broadcast_to(names, [rows, len(label_names)]),
        }

    return answer


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
            "truncated": lengths > tokenizer.config.longest_row,
        }

    return text_statistics


SIGNATURES: dict[str, Callable[[TrainedRun], Any]] = {
    DEFAULT_SIGNATURE: classify_endpoint,
    SETS_SIGNATURE: sets_endpoint,
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
        "threshold": run.conformal_threshold,
        "in_set": prediction_sets(probabilities[rows], run.conformal_threshold).tolist(),
    }


def calibration(run: TrainedRun) -> Calibration:
    """Return what the graph was calibrated with, for `verify` and for people."""
    return Calibration(
        temperature=run.temperature,
        coverage=run.config.calibration.coverage,
        threshold=run.conformal_threshold,
        score=SCORE,
        validation_rows=len(run.material.datasets.validation),
    )


def reading(run: TrainedRun) -> Reading:
    """Return how the graph reads a text, for a server to know how many texts it can run at once."""
    pipeline = run.config.pipeline
    return Reading(
        longest_row=pipeline.longest_row,
        window=pipeline.sequence_length if reads_windows(run.config) else pipeline.longest_row,
        linear_memory=MODELS[run.config.model_name].linear_memory,
    )


def write_warmup(
    path: Path, name: str, texts: Sequence[str], signature_names: Sequence[str] = (DEFAULT_SIGNATURE,)
) -> None:
    """Write what TensorFlow Serving replays before it calls a version available: a TFRecord of PredictionLog.

    Each of the signatures, which take `text` alone, is asked with every size of `WARMUP_BATCHES`.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature_name, size in itertools.product(signature_names, WARMUP_BATCHES):
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name=signature_name),
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
