"""One run, from texts to an evaluated classifier."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from app.answers import Answers
from app.calibration import fit_temperature, negative_log_likelihood, softmax
from app.config import RunConfig
from app.conformal import fit_threshold
from app.devices import built_for, let_memory_grow
from app.fitting import History, Listener, fit
from app.fusion import fit_logit_weights
from app.initial_weights import RANDOM_WEIGHTS, Start, read_start, start_from, with_file
from app.metrics import Evaluation, evaluate
from data.card import DataCard, describe
from data.pipeline import Datasets, Encoded, make_datasets, pipeline_fingerprint
from data.splits import Splits, load_splits
from data.vocabulary import Vocabulary, learn_vocabulary
from models import MODELS
from models.wide import WideConfig, beside_ngrams, encoder_and_ngrams
from models.windows import read_in_windows

logger = logging.getLogger("valence")


@dataclass(frozen=True, eq=False)
class Material:
    """What several models share, so that they can be compared: splits, vocabulary and batches."""

    splits: Splits
    vocabulary: Vocabulary
    datasets: Datasets
    card: DataCard
    fingerprints: dict[str, str]
    start: Start = RANDOM_WEIGHTS
    """What the models start from; nothing: random weights."""

    @cached_property
    def seen(self) -> dict[str, int]:
        """How many texts of validation and test stand in the text that the models start from, where there is one."""
        return self.start.seen(self.splits)


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A fitted, calibrated, evaluated classifier. Logits and probabilities are [rows of the split, classes]."""

    config: RunConfig
    material: Material
    model: keras.Model
    history: History
    temperature: float
    conformal_threshold: float
    validation_log_loss: float
    validation_logits: np.ndarray
    test_logits: np.ndarray
    test_probabilities: np.ndarray
    evaluation: Evaluation
    encoder_evaluation: Evaluation | None
    """Of the encoder without the n-grams beside it, calibrated by itself; None where there are none."""

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.config.model_name

    def answers(self, name: str) -> dict[str, Answers]:
        """Return the answers on validation and test, by split, as those of a model called `name`."""
        logits = {"validation": self.validation_logits, "test": self.test_logits}
        return {split: self._answers_on(split, name, of_split) for split, of_split in logits.items()}

    def _answers_on(self, split: str, name: str, logits: np.ndarray) -> Answers:
        splits = self.material.splits
        rows, encoded = dict(splits.items())[split], dict(self.material.datasets.items())[split]
        num_tokens = encoded.lengths - 1
        group = {} if rows.groups is None else {splits.group_name or "group": rows.groups}
        return Answers(
            name=name,
            label_names=splits.label_names,
            texts=rows.texts,
            label_ids=rows.label_ids.astype(np.int64),
            logits=logits,
            temperature=self.temperature,
            num_tokens=num_tokens,
            unknown_share=encoded.unknown / np.maximum(num_tokens, 1),
            sequence_length=encoded.config.longest_row,
            columns={column: np.array(values, dtype=object) for column, values in {**group, **rows.columns}.items()},
        )


class Listening(Protocol):
    """Who is told what takes a while. See `app.experiment.Reporter`."""

    def doing(self, what: str) -> None:
        """Tell what takes a while now."""

    def downloaded(self, done: int, total: int | None) -> None:
        """Tell how many bytes of a download have come, of how many."""


def prepare(config: RunConfig, cache: Path, listener: Listening) -> Material:
    """Load and split the data, learn the vocabulary from the training split, tokenise every text once.

    Where the models start from runs of `valence pretrain` (`config.init`), the vocabulary is the one of those.
    """
    let_memory_grow()
    start = read_start(config.init)
    listener.doing("reading texts")
    splits = load_splits(config.data, listener.downloaded)
    listener.doing("learning the vocabulary, tokenising")
    vocabulary = start.vocabulary or learn_vocabulary(splits.train.texts, config.vocabulary)
    start = with_file(start, config.init, vocabulary)
    datasets = make_datasets(splits, vocabulary, config.pipeline, cache)
    lengths = {name: encoded.lengths for name, encoded in datasets.items()}
    unknown = {name: int(encoded.unknown.sum()) for name, encoded in datasets.items()}
    window = config.pipeline.sequence_length if config.pipeline.long == "window" else None
    card = describe(splits, lengths, unknown, config.pipeline.longest_row, window)
    fingerprints = {
        "data": splits.rows_fingerprint,
        "split": splits.fingerprint,
        "vocabulary": vocabulary.fingerprint,
        "pipeline": pipeline_fingerprint(config.pipeline),
    }
    material = Material(splits, vocabulary, datasets, card, fingerprints, start)
    if any(material.seen.values()):
        counts = ", ".join(f"{count:,} of {name}" for name, count in material.seen.items())
        logger.warning("The text that the models start from held texts of this task: %s. Without: --leave-out", counts)
    return material


def train(config: RunConfig, material: Material, listen: Listener) -> TrainedRun:
    """Fit on train, calibrate on validation, evaluate on test, once: the whole life of one run."""
    datasets = material.datasets
    config = settle(config, material)
    model, history = fitted(config, material, listen)
    model = portable_copy(model, config, material)  # from here on: what is evaluated is what is exported
    logits_of = trace_logits(model)
    validation_logits = logits_of(datasets.validation)
    temperature = fit_temperature(validation_logits, datasets.validation.label_ids)
    threshold = fit_threshold(
        datasets.validation.label_ids, softmax(validation_logits, temperature), config.calibration.coverage
    )
    test_logits = logits_of(datasets.test)
    test_probabilities = softmax(test_logits, temperature)
    return TrainedRun(
        config=config,
        material=material,
        model=model,
        history=history,
        temperature=temperature,
        conformal_threshold=threshold,
        validation_log_loss=negative_log_likelihood(validation_logits, datasets.validation.label_ids, temperature),
        validation_logits=validation_logits,
        test_logits=test_logits,
        test_probabilities=test_probabilities,
        evaluation=evaluate(datasets.test.label_ids, test_probabilities, material.splits.label_names),
        encoder_evaluation=evaluate_encoder(model, material),
    )


def fitted(config: RunConfig, material: Material, listen: Listener) -> tuple[keras.Model, History]:
    """Build a network and fit it on train, and on validation how its parts count; the test split is not looked at."""
    config = settle(config, material)
    make_repeatable(config)
    with built_for(config.fit.precision):
        model = build_model(config, material)
    start_from(model, config.model_name, material.start)
    history = fit(model, material.datasets, config, listen)
    weigh_parts(model, material.datasets.validation)
    return model, history


def settle(config: RunConfig, material: Material) -> RunConfig:
    """Return the configuration with what is left to the size of the training split: how often it is passed over."""
    return config.model_copy(update={"model": config.model.settled(material.datasets.train.steps)})


def weigh_parts(model: keras.Model, validation: Encoded) -> None:
    """Let the validation split say how much the encoder counts and how much the n-grams beside it, if there are any."""
    encoder, ngrams = encoder_and_ngrams(model)
    if ngrams is not None:
        answers = [predict_logits(part, validation) for part in (encoder, ngrams)]
        model.get_layer("logits").logit_weights.assign(fit_logit_weights(answers, validation.label_ids))


def evaluate_encoder(model: keras.Model, material: Material) -> Evaluation | None:
    """Evaluate what the encoder of `model` answers without the n-grams beside it, if it has any."""
    (encoder, ngrams), datasets = encoder_and_ngrams(model), material.datasets
    if ngrams is None:
        return None
    logits_of = trace_logits(encoder)
    temperature = fit_temperature(logits_of(datasets.validation), datasets.validation.label_ids)
    probabilities = softmax(logits_of(datasets.test), temperature)
    return evaluate(datasets.test.label_ids, probabilities, material.splits.label_names)


def make_repeatable(config: RunConfig) -> None:
    """Seed Python, NumPy and TensorFlow; with `deterministic`, use operations that repeat bit for bit."""
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def build_model(config: RunConfig, material: Material) -> keras.Model:
    """Build the network that `config` describes for this vocabulary and these labels."""
    entry, pipeline = MODELS[config.model_name], config.pipeline
    in_windows = reads_windows(config)
    model = entry.build(
        config.model,
        vocabulary_size=len(material.vocabulary),
        num_classes=len(material.splits.label_names),
        sequence_length=pipeline.sequence_length if in_windows else pipeline.longest_row,
    )
    if in_windows:
        model = read_in_windows(model, pipeline.sequence_length, pipeline.window_stride)
    if isinstance(config.model, WideConfig) and config.model.wide:
        model = beside_ngrams(model, config.model, len(material.vocabulary))  # n-grams take a text of any length
    return model


def reads_windows(config: RunConfig) -> bool:
    """Whether a long text is read in windows, and not at once."""
    return config.pipeline.long == "window" and not MODELS[config.model_name].any_length


def portable_copy(model: keras.Model, config: RunConfig, material: Material) -> keras.Model:
    """Build the network again so that its graph runs on any device, with exactly the weights of `model`.

    An LSTM traced where a GPU is seen holds a cuDNN operation that no CPU can run, and what was fitted in bfloat16 is
    asked in float32.
    """
    portable = build_model(config.model_copy(update={"model": config.model.portable()}), material)
    portable.set_weights(model.get_weights())
    return portable


def predict_logits(model: keras.Model, encoded: Encoded) -> np.ndarray:
    """Logits float64[n, classes] for every row of one split; see `trace_logits` for more than one."""
    return trace_logits(model)(encoded)


def trace_logits(model: keras.Model) -> Callable[[Encoded], np.ndarray]:
    """Return what gives the logits float64[n, classes] for every row of a split, in the split's order.

    Weights are read at each call, so later changes count. A call raises FloatingPointError where a logit is not finite.
    """
    # Traced once for all lengths; called without its signature, TensorFlow warns of retracing from the third model on.
    predict = tf.function(lambda token_ids: model(token_ids, training=False)).get_concrete_function(
        tf.TensorSpec([None, None], tf.int32)
    )

    def logits_of(encoded: Encoded) -> np.ndarray:
        logits = np.full((len(encoded), model.output_shape[-1]), np.nan)
        with _full_precision():
            for token_ids, _, positions in encoded.evaluation_batches():
                logits[positions.numpy()] = predict(token_ids).numpy()
        if not np.isfinite(logits).all():
            raise FloatingPointError(f"{model.name} gives logits that are not finite: lower model.learning_rate")
        return logits

    return logits_of


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Multiply in float32 on GPUs that would round to TensorFloat-32: a server elsewhere must get the same answer."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
