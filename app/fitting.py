"""Fit the weights: schedule, optimizer, early stopping, and an interrupt that keeps what was learned."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from app.averaging import WeightAverage
from app.config import RunConfig
from app.memory import keep_freed_memory
from app.optimizer import LazyAdamW
from data.pipeline import Datasets
from models import MODELS
from models.wide import NGRAMS, WideConfig, encoder_and_ngrams
from models.windows import without_windows

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class EpochReport:
    """What is known at a moment of fitting; `validation_loss` only at an epoch's end. Losses are in nats a row."""

    model_name: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    elapsed: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    part: str = ""
    """`n-grams` where the report is of those beside an encoder."""


Listener = Callable[[EpochReport], None]


@dataclass
class History:
    """One entry an epoch, in order, losses in nats a row; `learning_rate` at its end. `best_epoch` counts from 1."""

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    ended: str = "all epochs"
    """How training ended: "all epochs", "stopped early" or "interrupted"."""

    @property
    def best_epoch(self) -> int:
        """Epoch whose weights were kept."""
        return int(np.argmin(self.validation_loss)) + 1


def fit(model: keras.Model, datasets: Datasets, config: RunConfig, listen: Listener) -> History:
    """Fit `model` on the training split and leave it with the weights of the lowest validation log loss.

    Where n-grams stand beside an encoder, each of the two is fitted as if it were alone; their weights in the sum are
    for `app.training` to set. The history is the encoder's, the seconds are those of both. Ctrl-C ends training after
    the step under way; the best weights so far are kept.

    Raises:
        FloatingPointError: a loss is no longer finite, so there is nothing to keep.
        ValueError: the configuration is not settled (`app.training.settle`).
    """
    keep_freed_memory()
    encoder, ngrams = encoder_and_ngrams(model)
    with ctrl_c() as interrupt:
        history = fit_alone(encoder, datasets, config, _Told(config.model_name, listen), interrupt)
        if ngrams is not None:
            assert isinstance(config.model, WideConfig)
            of_ngrams = config.model_copy(update={"model_name": NGRAMS, "model": config.model.ngram_config()})
            if interrupt.asked:  # what is counted costs little; what is learned would keep the user waiting
                adapt_to(ngrams, datasets, of_ngrams)
            else:
                told = _Told(config.model_name, listen, part="n-grams")
                history = _together(history, fit_alone(ngrams, datasets, of_ngrams, told, interrupt))
    return history


def _together(encoder: History, ngrams: History) -> History:
    """The history of both: the encoder's figures, the time of both, and whether either was cut short."""
    return dataclasses.replace(
        encoder,
        seconds=encoder.seconds + ngrams.seconds,
        cpu_seconds=encoder.cpu_seconds + ngrams.cpu_seconds,
        ended=ngrams.ended if ngrams.ended == INTERRUPTED else encoder.ended,
    )


def adapt_to(model: keras.Model, datasets: Datasets, config: RunConfig) -> None:
    """Let the model take from the training split what it counts before training, if anything."""
    adapt = MODELS[config.model_name].adapt
    if adapt is not None:
        adapt(without_windows(model), config.model, datasets.train.labelled_batches())


def fit_alone(model: keras.Model, datasets: Datasets, config: RunConfig, told: _Told, interrupt: Interrupt) -> History:
    """Fit one network: schedule, running average, early stopping."""
    adapt_to(model, datasets, config)
    epochs = epochs_of(config)
    total_steps = datasets.train.steps * epochs
    model.compile(
        optimizer=make_optimizer(config, total_steps),
        loss=smoothed_cross_entropy(
            config.fit.label_smoothing, config.pipeline.batch_size if config.pipeline.long == "window" else None
        ),
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="log_loss"),
        ],
        # Where a GPU is seen, Keras would compile the whole step: how many rows of a table a batch uses is known only
        # while it runs, and every new number would be compiled anew.
        jit_compile=False,
    )
    # Variables that are made while the step is traced have TensorFlow trace it once more.
    model.optimizer.build(model.trainable_variables)
    recorder = _Recorder(config, datasets.train.steps, told, interrupt)
    stopper = keras.callbacks.EarlyStopping(
        "val_log_loss", mode="min", patience=config.fit.patience, restore_best_weights=True
    )
    model.fit(
        datasets.train.training_batches(config.seed),
        validation_data=datasets.validation.labelled_batches(),
        epochs=epochs,
        callbacks=[WeightAverage(config.fit.averaging * total_steps), recorder, stopper],
        class_weight=class_weights(datasets.train.label_ids, config),
        shuffle=False,  # the pipeline shuffles; Keras warns unless told so
        verbose=0,
    )
    return recorder.history


def epochs_of(config: RunConfig) -> int:
    """Passes over the training split."""
    if config.model.epochs is None:
        raise ValueError(f"model.epochs of {config.model_name} is not set: app.training.settle sets it")
    return config.model.epochs


def make_optimizer(config: RunConfig, total_steps: int) -> keras.optimizers.Optimizer:
    """AdamW with a linear warm-up, then a cosine down to zero."""
    warmup_steps = round(config.fit.warmup_fraction * total_steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else config.model.learning_rate,
        decay_steps=max(1, total_steps - warmup_steps),
        warmup_target=config.model.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    optimizer = LazyAdamW(
        schedule,
        weight_decay=config.model.weight_decay,
        beta_2=0.99,
        global_clipnorm=config.fit.clip_norm,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def smoothed_cross_entropy(smoothing: float, batch_size: int | None = None) -> Callable[[Any, Any], Any]:
    """Cross-entropy of label_ids int32[batch] and logits float32[batch, classes] -> float32[batch], in nats.

    The target is 1 - smoothing, the rest spread over all classes (Szegedy et al., 2016). With `batch_size` a batch of
    fewer rows counts for less: of long texts few make a batch, and each row of an epoch is to have the same say.
    """

    def loss(label_ids: Any, logits: Any) -> Any:
        one_hot = keras.ops.one_hot(keras.ops.reshape(label_ids, [-1]), logits.shape[-1])
        losses = keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True, label_smoothing=smoothing)
        return (
            losses
            if batch_size is None
            else losses * keras.ops.cast(keras.ops.shape(logits)[0], "float32") / batch_size
        )

    return loss


def class_weights(label_ids: np.ndarray, config: RunConfig) -> dict[int, float] | None:
    """Label id -> weight, or None. Balanced weights average to one over the rows."""
    if config.fit.class_weights == "none":
        return None
    counts = np.bincount(label_ids)
    return {label_id: len(label_ids) / (len(counts) * count) for label_id, count in enumerate(counts)}


@dataclass(frozen=True)
class _Told:
    """Whom reports go to, and what of: a model, or a part of it."""

    model_name: str
    listen: Listener
    part: str = ""

    @property
    def title(self) -> str:
        """How an error names it."""
        return f"the {self.part} beside {self.model_name}" if self.part else self.model_name


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed: training ends after the step under way."""

    asked: bool = False


class _Recorder(keras.callbacks.Callback):
    """Writes the history, tells the listener, and ends training when asked or when the loss is lost."""

    def __init__(self, config: RunConfig, steps: int, told: _Told, interrupt: Interrupt) -> None:
        super().__init__()
        self.history = History()
        self._config, self._steps, self._told, self._interrupt = config, steps, told, interrupt
        self._epoch = 1

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        # Without label smoothing, so that it can be held against the validation loss.
        loss = self._finite((logs or {})["log_loss"], f"epoch {self._epoch}, step {batch + 1}")
        self._report(batch + 1, loss)
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        history = self.history
        history.loss.append(float(logs["log_loss"]))
        history.validation_loss.append(self._finite(logs["val_log_loss"], f"validation, epoch {self._epoch}"))
        history.validation_accuracy.append(float(logs["val_accuracy"]))
        history.learning_rate.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
        self._report(self._steps, history.loss[-1], history.validation_loss[-1], history.validation_accuracy[-1])
        self._stop_if_asked()  # during validation: no step of another epoch

    def on_train_end(self, logs: dict | None = None) -> None:
        self.history.seconds = time.perf_counter() - self._started
        self.history.cpu_seconds = time.process_time() - self._cpu_started
        if not self._interrupt.asked and len(self.history.loss) < epochs_of(self._config):
            self.history.ended = "stopped early"

    def _stop_if_asked(self) -> None:
        if self._interrupt.asked:
            self.history.ended = INTERRUPTED
            self.model.stop_training = True

    def _finite(self, loss: float, where: str) -> float:
        if not np.isfinite(loss):
            rate = self._config.model.learning_rate
            advice = "model.wide=false leaves them out" if self._told.part else f"lower model.learning_rate ({rate:g})"
            raise FloatingPointError(f"the loss of {self._told.title} became {loss} in {where}: {advice}")
        return float(loss)

    def _report(
        self, step: int, loss: float, validation_loss: float | None = None, accuracy: float | None = None
    ) -> None:
        elapsed = time.perf_counter() - self._started
        name, epochs, part = self._told.model_name, epochs_of(self._config), self._told.part
        self._told.listen(
            EpochReport(name, self._epoch, epochs, step, self._steps, loss, elapsed, validation_loss, accuracy, part)
        )


@contextlib.contextmanager
def ctrl_c() -> Iterator[Interrupt]:
    """Take the first Ctrl-C as a wish to end; a second one ends the program as usual."""
    interrupt, before = Interrupt(), signal.getsignal(signal.SIGINT)
    # Only the main thread may set a handler. A job in the background ignores Ctrl-C, which is meant for others.
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield interrupt
        return

    def once(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        interrupt.asked = True

    signal.signal(signal.SIGINT, once)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
