"""Our side of speed.py: the layers and the exported graph of this project, in a training step like the peer's.

As a worker (`speed_ours.py SIZES`) it answers requests like speed_torch.py; `speed_ours.py length ...` and `rows ...`
measure one size in a process of its own and print its time and its peak of memory.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import app  # noqa: F401, I001  before TensorFlow, for which it sets the environment as for every command

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from app.memory import keep_freed_memory
from app.optimizer import LazyAdamW
from app.prediction_files import plan_file, predict_file
from app.serving.golden import EXTRA_FOLDER
from app.serving.predictor import Predictor
from app.serving.reading import READING_FILE, Reading
from data.pipeline import PipelineConfig, Tokenizer
from data.vocabulary import VocabularyConfig, learn_vocabulary
from models import MODELS
from models.attention import TransformerBlock
from models.recurrence import FastLSTM


def build(name: str, sizes: dict[str, Any], *, portable: bool = False) -> keras.Model:
    """The peer's architecture in our layers: token ids int32[batch, time] -> one logit float32[batch, 1]."""
    token_ids = keras.Input((None,), dtype="int32")
    mask = ops.not_equal(token_ids, 0)
    states = layers.Embedding(sizes["vocabulary_size"], sizes["embedding_dim"])(token_ids)
    if name == "lstm":
        states = layers.Dropout(0.3)(states)
        lstm = FastLSTM(sizes["hidden_dim"], sizes["bidirectional"], use_cudnn=False if portable else "auto")
        states = lstm(states, mask, token_ids=token_ids)
        pooled = ops.max(ops.where(mask[:, :, None], states, -1e4), axis=1)
    else:
        states = layers.Dropout(0.2)(AddedPositions(sizes["sequence_length"])(states))
        for _ in range(sizes["num_layers"]):
            block = TransformerBlock(sizes["intermediate_dim"], sizes["num_heads"], dropout=0.1, inner_dropout=0.1)
            states = block(states, mask)
        weights = ops.cast(mask, "float32")[:, :, None]
        pooled = ops.sum(states * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)
    return keras.Model(token_ids, layers.Dense(1)(layers.Dropout(0.3)(pooled)))


class AddedPositions(layers.Layer):
    """Adds a learned vector for each place."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def build(self, shape: tuple) -> None:
        self.places = self.add_weight(shape=(self.length, shape[-1]), name="places")

    def call(self, states: Any) -> Any:
        return states + self.places[: ops.shape(states)[1]]


class DenseAdam(keras.optimizers.Adam):
    """Adds the rows of a table's gradient up once; Keras does it for the norm, and for the update again.

    For this comparison alone: training takes `LazyAdamW`, which never makes that gradient.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply([tf.convert_to_tensor(gradient) for gradient in grads], trainable_variables)


def make_step(
    model: keras.Model, batch_size: int, length: int, vocabulary_size: int, optimizer: keras.optimizers.Optimizer
) -> Callable[[], None]:
    """Return one step: forward, backward, clip, update."""
    one_logit = model.output_shape[-1] == 1
    loss = (
        keras.losses.BinaryCrossentropy(from_logits=True)
        if one_logit
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.compile(optimizer, loss)
    model.make_train_function()
    rng = np.random.default_rng(0)
    ids = rng.integers(2, vocabulary_size, (batch_size, length), dtype=np.int32)
    targets = rng.integers(0, 2, batch_size).astype("float32" if one_logit else "int32")
    batches = iter(tf.data.Dataset.from_tensors((ids, targets)).repeat().prefetch(2))
    return lambda: ops.convert_to_numpy(model.train_function(batches)["loss"])


def make_prediction(name: str, model: keras.Model, sizes: dict[str, Any]) -> Callable[[], None]:
    """Return the work from a file of texts to a file of labels, by `valence predict --file`'s own functions."""
    folder = Path(tempfile.mkdtemp()) / "1"
    _export(name, model, sizes, folder)
    predictor = Predictor(folder)

    def predict() -> None:
        plan = plan_file(Path(sizes["texts"]), Path(sizes["answers"]), overwrite=True)
        predict_file(predictor, plan, lambda done, count: None)

    return predict


def _export(name: str, model: keras.Model, sizes: dict[str, Any], folder: Path) -> None:
    with Path(sizes["texts"]).open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    vocabulary = learn_vocabulary(texts, VocabularyConfig(size=sizes["vocabulary_size"]))
    tokenizer = Tokenizer(vocabulary, PipelineConfig(sequence_length=sizes["sequence_length"]))
    names = tf.constant(["bad", "good"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(text: tf.Tensor) -> dict[str, tf.Tensor]:
        good = tf.sigmoid(model(tokenizer(text), training=False))
        probabilities = tf.concat([1.0 - good, good], axis=1)
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
            "confidence": tf.reduce_max(probabilities, axis=1),
            "probabilities": probabilities,
            "classes": tf.broadcast_to(names, [tf.shape(text)[0], 2]),
        }

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", classify)
    archive.write_out(str(folder), verbose=False)
    reading = Reading(sizes["sequence_length"], sizes["sequence_length"], MODELS[name].linear_memory)
    (folder / EXTRA_FOLDER).mkdir()
    (folder / EXTRA_FOLDER / READING_FILE).write_text(json.dumps(dataclasses.asdict(reading)))


def serve(sizes: dict[str, Any]) -> None:
    keras.utils.set_random_seed(0)
    keep_freed_memory()
    made: dict[tuple[str, str], Callable[[], None]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = (request["what"], request["model"])
        if key not in made:
            model = build(request["model"], sizes, portable=request["what"] == "predict")
            if request["what"] == "train":
                adam = DenseAdam(1e-3, global_clipnorm=1.0)  # of whole tables, as the peer's
                shape = (sizes["batch_size"], sizes["sequence_length"], sizes["vocabulary_size"])
                made[key] = make_step(model, *shape, adam)
            else:
                made[key] = make_prediction(request["model"], model, sizes)
        print(json.dumps([_timed(made[key]) for _ in range(request["times"])]), flush=True)


def grow_length(name: str, length: int, batch_size: int) -> dict[str, Any]:
    """Time a step of an encoder of MODELS, at its own sizes and with the optimizer of `fit`, on rows of one length."""
    keep_freed_memory()
    entry = MODELS[name]
    config = entry.config(wide=False)
    model = entry.build(config, vocabulary_size=8000, num_classes=2, sequence_length=length)
    optimizer = LazyAdamW(config.learning_rate, weight_decay=config.weight_decay, global_clipnorm=1.0)
    step = make_step(model, batch_size, length, 8000, optimizer)
    first = _timed(step)
    return {"first": first, "seconds": [_timed(step) for _ in range(6)], "peak_mb": _peak()}


def grow_rows(rows: int) -> dict[str, Any]:
    """Time the road from a file to batches of token ids: read, split, vocabulary, tokenise, one pass."""
    from app.config import resolve_config
    from app.training import prepare

    class Quiet:
        def doing(self, what: str) -> None: ...

        def downloaded(self, done: int, total: int | None) -> None: ...

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        write_texts(path, rows)
        started = time.perf_counter()
        config = resolve_config("lstm", {}, data={"source": str(path)})
        material = prepare(config, Path(folder), Quiet())
        prepared = time.perf_counter() - started
        one_pass = _timed(lambda: [ids.shape for ids, _ in material.datasets.train.training_batches(0)])
    return {"prepare": prepared, "pass": one_pass, "peak_mb": _peak()}


def write_texts(path: Path, rows: int, seed: int = 0) -> None:
    """Write made-up texts of 20 to 400 words drawn with the frequencies of Zipf's law, and labels."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(20_000)]
    share = 1 / np.arange(1, len(vocabulary) + 1)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(rows):
            drawn = rng.choice(len(vocabulary), min(20 + int(rng.exponential(120)), 400), p=share / share.sum())
            writer.writerow([" ".join(vocabulary[word] for word in drawn), "good" if row % 2 else "bad"])


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _peak() -> float:
    scale = 1024 if sys.platform == "linux" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def main() -> None:
    if sys.argv[1] == "length":
        print(json.dumps(grow_length(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    elif sys.argv[1] == "rows":
        print(json.dumps(grow_rows(int(sys.argv[2]))))
    elif sys.argv[1] == "texts":
        write_texts(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        serve(json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
