"""Train an encoder to predict pieces. What a step does depends on its number alone, so that a checkpoint goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from app.config import RunConfig
from app.devices import let_memory_grow
from app.errors import RequestError
from app.fitting import ctrl_c, make_optimizer
from app.initial_weights import Start, start_from, weights_of
from app.pretraining_config import PretrainingConfig
from app.workshop import Workshop
from data.piece_windows import EncodedTexts, Windows
from models import MODELS
from models import language_modelling as lm

HELD_OUT_BATCHES, HELD_OUT_TARGETS = 32, 1024  # bound the time that one figure of the held-out loss takes
SMOOTHING = 0.75  # exponent of the counts that negatives are drawn by, as for word vectors
TIMED_STEPS = 10  # steps that are timed to find out how many go into a budget
HELD_OUT = 10**6  # stands for a step's number where the held-out tasks are made


class PretrainingInterruptedError(RuntimeError):
    """Ctrl-C: a checkpoint is kept, and the same command goes on from there."""


@dataclass(frozen=True)
class StepReport:
    """What is known after a step. Losses in nats a target; `loss` is against sampled pieces where there are many.

    held_out_loss: over the whole vocabulary, only at a checkpoint.
    """

    step: int
    steps: int
    loss: float
    elapsed: float
    held_out_loss: float | None = None


StepListener = Callable[[StepReport], None]


def fit_language_model(
    config: PretrainingConfig,
    texts: EncodedTexts,
    vocabulary_size: int,
    start: Start,
    workshop: Workshop,
    listen: StepListener,
) -> tuple[dict[str, np.ndarray], str]:
    """Return the weights of the encoder by layer, and the objective they were trained on: `masked` or `directions`.

    Raises:
        PretrainingInterruptedError: Ctrl-C, after a checkpoint was kept.
        FloatingPointError: the loss is no longer finite.
    """
    let_memory_grow()
    keras.utils.set_random_seed(config.seed)
    training, held_out = _cut(config, texts)
    learner = _Learner(config, texts, vocabulary_size, start)
    steps = workshop.plan.get("steps") or _settle_steps(config, learner, training, workshop)
    learner.prepare(steps)
    done, spent = _go_on(learner, workshop)
    started = time.perf_counter() - spent
    every = config.language.checkpoint_steps
    with ctrl_c() as interrupt:
        for step, rows in _batches(config, training, done, steps):
            loss = learner.step(training.token_ids(rows), step)
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss became {loss} in step {step + 1}: lower language.learning_rate")
            done = step + 1
            at_checkpoint = done % every == 0 or done == steps
            figure = learner.held_out_loss(held_out) if at_checkpoint else None
            listen(StepReport(done, steps, loss, time.perf_counter() - started, figure))
            if at_checkpoint or interrupt.asked:
                workshop.save_state(learner.state(done, time.perf_counter() - started))
            if interrupt.asked and done < steps:
                raise PretrainingInterruptedError(
                    f"interrupted after step {done:,} of {steps:,}; the same command goes on from there"
                )
    return weights_of(learner.encoder), learner.objective


class _Learner:
    """The encoder, its head, the optimizer, and what is asked of them at a step."""

    def __init__(self, config: PretrainingConfig, texts: EncodedTexts, vocabulary_size: int, start: Start) -> None:
        model = MODELS[config.kind].build(
            config.model,
            vocabulary_size=vocabulary_size,
            num_classes=2,
            sequence_length=config.pipeline.sequence_length,
        )
        try:
            self.encoder = lm.encoder_of(model)
        except ValueError as error:
            raise RequestError(str(error)) from error
        start_from(model, config.kind, start)
        self._config, self._size = config, vocabulary_size
        length = min(lm.PROBE_LENGTH, config.language.window)
        self._pooling = lm.pooling_of(self.encoder, length)
        self._directions = lm.reading_directions(self.encoder, vocabulary_size, length)
        self._table = lm.embedding_table(self.encoder)
        self._head = lm.PieceHead(self._table.shape[1], self._pooling, self._directions, name="piece_head")
        self._head.build(self.encoder.output_shape)
        self._bias = keras.Variable(np.zeros(vocabulary_size, np.float32), name="bias")
        share = (texts.counts(vocabulary_size) + 1.0) ** SMOOTHING
        self._cumulative = np.cumsum(share / share.sum())
        self._negatives = min(config.language.negatives, vocabulary_size)
        self._log_expected = tf.constant(np.log(self._negatives * share / share.sum()), tf.float32)
        self._trained = [*self.encoder.trainable_variables, *self._head.trainable_variables, self._bias]
        self._measure = tf.function(self._loss_on, input_signature=TASK)

    @property
    def objective(self) -> str:
        """`directions` where no state sees the piece it predicts, else `masked`."""
        return "masked" if self._directions is None else "directions"

    def prepare(self, steps: int) -> None:
        """Make the optimizer, whose schedule depends on the number of steps."""
        language = self._config.language
        update = {"learning_rate": language.learning_rate, "weight_decay": language.weight_decay}
        of_run = RunConfig(
            model_name=self._config.kind, fit=self._config.fit, model=self._config.model.model_copy(update=update)
        )
        self._optimizer = make_optimizer(of_run, steps)
        self._optimizer.build(self._trained)
        self._train = tf.function(self._train_on, input_signature=[*TASK, tf.TensorSpec([None], tf.int32)])

    def step(self, token_ids: np.ndarray, number: int) -> float:
        """Learn from one batch; `number` decides what is hidden and what it is held against."""
        chance = np.random.default_rng([self._config.seed, 1, number])
        task = self._task(token_ids, chance)
        drawn = np.searchsorted(self._cumulative, chance.random(self._negatives))
        sampled = np.minimum(drawn, self._size - 1).astype(np.int32)
        return float(self._train(*task, sampled))

    def held_out_loss(self, windows: Windows) -> float:
        """Mean loss over the whole vocabulary on a part of the held-out texts, the same part and targets every time."""
        total, count = 0.0, 0
        batches = windows.batches(self._config.language.batch_size, self._config.seed, HELD_OUT)[:HELD_OUT_BATCHES]
        for number, rows in enumerate(batches):
            chance = np.random.default_rng([self._config.seed, 2, number])
            task = _some(self._task(windows.token_ids(rows), chance), HELD_OUT_TARGETS, chance)
            losses = self._measure(*task).numpy()
            total, count = total + float(losses.sum()), count + len(losses)
        return total / count if count else float("nan")

    def state(self, step: int, seconds: float) -> dict[str, np.ndarray]:
        """Everything that the next step depends on; the chance of dropout too."""
        values = {f"v{number}": keras.ops.convert_to_numpy(one) for number, one in enumerate(self._variables())}
        return {"step": np.array(step), "seconds": np.array(seconds), **values}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` returned."""
        for number, variable in enumerate(self._variables()):
            variable.assign(state[f"v{number}"])

    def _variables(self) -> list[Any]:
        return [*self.encoder.variables, *self._head.variables, self._bias, *self._optimizer.variables]

    def _task(self, token_ids: np.ndarray, chance: np.random.Generator) -> lm.Task:
        if self._directions is not None:
            return lm.directions_task(token_ids, both=len(self._directions.backward) > 0)
        share = self._config.language.masked_share
        return lm.masked_task(token_ids, chance, share=share, vocabulary_size=self._size, pooling=self._pooling)

    def _vectors(self, token_ids: Any, rows: Any, positions: Any, num_forward: Any, training: bool) -> Any:
        return self._head(
            self.encoder(token_ids, training=training), rows=rows, positions=positions, num_forward=num_forward
        )

    def _loss_on(self, token_ids: Any, rows: Any, positions: Any, target_ids: Any, num_forward: Any) -> Any:
        vectors = self._vectors(token_ids, rows, positions, num_forward, training=False)
        return lm.full_loss(vectors, self._table.value, self._bias.value, target_ids)

    def _train_on(
        self, token_ids: Any, rows: Any, positions: Any, target_ids: Any, num_forward: Any, sampled: Any
    ) -> Any:
        with tf.GradientTape() as tape:
            vectors = self._vectors(token_ids, rows, positions, num_forward, training=True)
            table, bias = self._table.value, self._bias.value
            if self._negatives == self._size:
                losses = lm.full_loss(vectors, table, bias, target_ids)
            else:
                losses = lm.sampled_loss(vectors, table, bias, target_ids, sampled, self._log_expected)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, [one.value for one in self._trained])
        self._optimizer.apply(gradients, self._trained)
        return loss


TASK = [
    tf.TensorSpec([None, None], tf.int32),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([], tf.int32),
]
"""The signature of `lm.Task`."""


def _cut(config: PretrainingConfig, texts: EncodedTexts) -> tuple[Windows, Windows]:
    """Windows to learn from, and those of the texts that are held out."""
    order = np.random.default_rng([config.seed, 0]).permutation(len(texts))
    held_out = max(1, round(config.language.held_out_share * len(texts)))
    training = Windows.cut(texts, config.language.window, np.sort(order[held_out:]))
    if not len(training):
        raise RequestError(f"{len(texts)} text is too few: one is held out, and nothing is left to learn from")
    return training, Windows.cut(texts, config.language.window, np.sort(order[:held_out]))


def _settle_steps(config: PretrainingConfig, learner: _Learner, training: Windows, workshop: Workshop) -> int:
    """Decide how many steps there will be, once and for all starts: as many as epochs, steps and budget allow."""
    language = config.language
    steps = training.steps(language.batch_size) * language.epochs
    steps = min(steps, language.steps or steps)
    if config.budget_minutes:
        steps = min(steps, max(1, int(60 * config.budget_minutes / _seconds_a_step(config, learner, training))))
    workshop.settle(steps=steps)
    return steps


def _seconds_a_step(config: PretrainingConfig, learner: _Learner, training: Windows) -> float:
    """Time some steps, the first left out, and take back what they changed."""
    learner.prepare(TIMED_STEPS)
    before = learner.state(0, 0.0)
    batches = [rows for _, rows in _batches(config, training, 0, TIMED_STEPS + 1)]
    learner.step(training.token_ids(batches[0]), 0)
    started = time.perf_counter()
    for number, rows in enumerate(batches):
        learner.step(training.token_ids(rows), number)
    seconds = (time.perf_counter() - started) / len(batches)
    learner.restore(before)
    return seconds


def _batches(config: PretrainingConfig, training: Windows, done: int, steps: int) -> Any:
    """Yield each step's number, from `done`, and the rows of its batch, the same ones however often it was started."""
    size = config.language.batch_size
    an_epoch = training.steps(size)
    for epoch in range(done // an_epoch, -(-steps // an_epoch)):
        for number, rows in enumerate(training.batches(size, config.seed, epoch)):
            if done <= epoch * an_epoch + number < steps:
                yield epoch * an_epoch + number, rows


def _go_on(learner: _Learner, workshop: Workshop) -> tuple[int, float]:
    """Take over the checkpoint; return its step and the seconds until then."""
    state = workshop.load_state()
    if state is None:
        return 0, 0.0
    learner.restore(state)
    return int(state["step"]), float(state["seconds"])


def _some(task: lm.Task, count: int, chance: np.random.Generator) -> lm.Task:
    """Keep some of the targets, those of each half in their order."""
    if len(task.rows) <= count:
        return task
    kept = np.sort(chance.choice(len(task.rows), count, replace=False))
    forward = int((kept < task.num_forward).sum())
    return lm.Task(task.token_ids, task.rows[kept], task.positions[kept], task.target_ids[kept], forward)
