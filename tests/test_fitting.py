"""Fitting: the weights that are kept, when it ends, what Ctrl-C does, and figures worked by hand."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from app.calibration import negative_log_likelihood
from app.config import RunConfig, resolve_config
from app.fitting import EpochReport, History, Listener, class_weights, fit, make_optimizer, smoothed_cross_entropy
from app.training import make_repeatable, predict_logits
from data.pipeline import Datasets, PipelineConfig, Tokenizer, encode_split, make_datasets
from data.sources import DataConfig
from data.splits import Splits, load_splits
from data.vocabulary import Vocabulary, VocabularyConfig, learn_vocabulary
from models import MODELS

ROOT = Path(__file__).parents[1]
SIZES = {
    "linear": ["model.num_buckets=1024"],
    "lstm": ["model.embedding_dim=8", "model.hidden_dim=4", "model.bidirectional=false", "model.wide=false"],
    "transformer": ["model.embedding_dim=8", "model.num_heads=2", "model.intermediate_dim=8", "model.wide=false"],
}
START = {"linear": ["model.base_weight=0"], "lstm": []}  # knowing nothing, so that there is something to learn
LSTM = ("model.learning_rate=0.05", "model.epochs=3")
PIPELINE = PipelineConfig(sequence_length=16, batch_size=32)  # 192 rows in one bucket: 6 steps an epoch


def config(name: str, *overrides: str) -> RunConfig:
    return resolve_config(name, {}, [*SIZES[name], *overrides])


@pytest.fixture(scope="module")
def splits(reviews: Path) -> Splits:
    return load_splits(DataConfig(source=str(reviews), text_column="review", label_column="stars"))


@pytest.fixture(scope="module")
def vocabulary(splits: Splits) -> Vocabulary:
    return learn_vocabulary(splits.train.texts, VocabularyConfig(size=200))


@pytest.fixture(scope="module")
def datasets(splits: Splits, vocabulary: Vocabulary) -> Datasets:
    return make_datasets(splits, vocabulary, PIPELINE, Path("not-needed"))


def build(settings: RunConfig) -> keras.Model:
    make_repeatable(settings)
    return MODELS[settings.model_name].build(settings.model, vocabulary_size=200, num_classes=2, sequence_length=16)


def ignore(_: EpochReport) -> None:
    """Listen to nothing."""


def fitted(settings: RunConfig, datasets: Datasets, listen: Listener = ignore) -> tuple[keras.Model, History]:
    model = build(settings)
    return model, fit(model, datasets, settings, listen)


def test_a_training_step_is_traced_once(datasets, monkeypatch):
    traced, step = [], keras.Model.train_step

    def told(model: keras.Model, batch: tuple) -> dict:
        traced.append(model.name)
        return step(model, batch)

    monkeypatch.setattr(keras.Model, "train_step", told)
    fitted(config("linear", "model.epochs=1"), datasets)
    assert traced == ["linear"]


def validation_loss(model: keras.Model, datasets: Datasets) -> float:
    logits = predict_logits(model, datasets.validation)
    return negative_log_likelihood(logits, datasets.validation.label_ids, 1.0)


@dataclasses.dataclass
class Fitted:
    """A small LSTM after three epochs, with all that its listener heard."""

    history: History
    reports: list[EpochReport]


@pytest.fixture(scope="module")
def lstm(datasets: Datasets) -> Fitted:
    reports: list[EpochReport] = []
    _, history = fitted(config("lstm", *LSTM), datasets, reports.append)
    return Fitted(history, reports)


# What is learned and what is kept


def test_the_loss_falls(lstm):
    assert lstm.history.loss == sorted(lstm.history.loss, reverse=True)
    assert lstm.history.loss[-1] < 0.8 * math.log(2)
    assert min(lstm.history.validation_loss) < lstm.history.validation_loss[0]


def test_the_history_has_one_entry_an_epoch(lstm):
    history = lstm.history
    series = (history.loss, history.validation_loss, history.validation_accuracy, history.learning_rate)
    assert [len(values) for values in series] == [3, 3, 3, 3]
    assert history.ended == "all epochs"
    assert history.learning_rate[-1] == pytest.approx(0, abs=1e-8)
    assert history.best_epoch == 1 + history.validation_loss.index(min(history.validation_loss))
    assert history.seconds > 0
    assert history.cpu_seconds > 0


def test_the_listener_hears_of_every_step_and_of_every_epochs_end(lstm):
    heard = [(report.epoch, report.step, report.validation_loss is not None) for report in lstm.reports]
    steps = [(step, False) for step in range(1, 7)] + [(6, True)]
    assert heard == [(epoch, *step) for epoch in (1, 2, 3) for step in steps]
    assert {(report.model_name, report.epochs, report.steps) for report in lstm.reports} == {("lstm", 3, 6)}
    ends = [report for report in lstm.reports if report.validation_loss is not None]
    assert [report.validation_loss for report in ends] == lstm.history.validation_loss
    assert [report.validation_accuracy for report in ends] == lstm.history.validation_accuracy
    elapsed = [report.elapsed for report in lstm.reports]
    assert elapsed == sorted(elapsed)


@pytest.fixture(scope="module")
def flipped(splits: Splits, datasets: Datasets) -> Datasets:
    """Validation with the labels exchanged: the more is learned, the higher its loss."""
    validation = dataclasses.replace(splits.validation, label_ids=1 - splits.validation.label_ids)
    encoded = encode_split(validation, datasets.tokenizer, Path("not-needed"))
    return dataclasses.replace(datasets, validation=encoded)


@pytest.mark.parametrize("name", ["linear", "lstm"])
def test_the_weights_kept_are_those_of_the_lowest_validation_loss(flipped, name):
    model, history = fitted(config(name, *START[name], "model.learning_rate=0.05", "model.epochs=3"), flipped)
    assert history.best_epoch < 3
    assert min(history.validation_loss) < history.validation_loss[-1] - 0.01
    assert validation_loss(model, flipped) == pytest.approx(min(history.validation_loss), abs=1e-5)


def test_without_a_worse_epoch_the_last_weights_are_kept(datasets):
    model, history = fitted(config("linear", *START["linear"], "model.epochs=2"), datasets)
    assert history.best_epoch == 2
    assert validation_loss(model, datasets) == pytest.approx(history.validation_loss[1], abs=1e-5)


@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_when_patience_is_out(flipped, patience):
    _, history = fitted(config("linear", *START["linear"], f"fit.patience={patience}", "model.epochs=8"), flipped)
    assert (history.ended, history.best_epoch) == ("stopped early", 1)
    assert len(history.loss) == 1 + patience


# Repeating


def test_the_same_seed_gives_the_same_history_and_another_seed_another(datasets, lstm):
    again, other = (fitted(config("lstm", *LSTM, f"seed={seed}"), datasets)[1] for seed in (0, 1))
    assert again.loss == pytest.approx(lstm.history.loss, rel=1e-5)
    assert again.validation_loss == pytest.approx(lstm.history.validation_loss, rel=1e-5)
    assert other.loss != pytest.approx(lstm.history.loss, rel=1e-3)


def test_the_seed_also_decides_the_order_of_the_rows(datasets):
    settings, other = (config("linear", *START["linear"], "model.epochs=1", f"seed={seed}") for seed in (0, 1))
    # Built alike, and linear draws nothing at random: the order is all that differs.
    losses = [fit(build(settings), datasets, one, ignore).loss[0] for one in (settings, settings, other)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[2] != pytest.approx(losses[0], rel=1e-6)


DETERMINISTIC = """
import hashlib, sys
from test_fitting import Path, config, fitted, learn_vocabulary, load_splits, make_datasets
from test_fitting import PIPELINE, DataConfig, VocabularyConfig

splits = load_splits(DataConfig(source=sys.argv[1], text_column="review", label_column="stars"))
vocabulary = learn_vocabulary(splits.train.texts, VocabularyConfig(size=200))
datasets = make_datasets(splits, vocabulary, PIPELINE, Path("not-needed"))
model, _ = fitted(config("transformer", "deterministic=true", "model.epochs=1"), datasets)
print(hashlib.sha256(b"".join(weights.tobytes() for weights in model.get_weights())).hexdigest())
"""


@pytest.mark.slow
def test_deterministic_training_gives_equal_bits_in_two_processes(reviews):
    command = [sys.executable, "-c", DETERMINISTIC, str(reviews)]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=300)[0] for process in running)
    assert [process.returncode for process in running] == [0, 0]
    assert len(first.strip()) == 64
    assert first == second


# Ctrl-C


@pytest.fixture
def handler() -> Iterator[object]:
    """The handler of SIGINT while a test runs: Python's own, also where the tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_an_epoch_ends_training_at_the_steps_end_and_keeps_the_weights(datasets, handler):
    reports: list[EpochReport] = []

    def listen(report: EpochReport) -> None:
        reports.append(report)
        if (report.epoch, report.step) == (2, 2):
            press_ctrl_c()

    model, history = fitted(config("lstm", "model.epochs=5", "model.learning_rate=0.01"), datasets, listen)
    assert history.ended == "interrupted"
    assert len(history.loss) == 2
    # The signal may arrive at another thread and reach Python one step later.
    steps = [report.step for report in reports if report.epoch == 2 and report.validation_loss is None]
    assert steps in ([1, 2], [1, 2, 3])
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    assert validation_loss(model, datasets) == pytest.approx(min(history.validation_loss), abs=1e-5)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_in_the_first_epoch_keeps_what_was_learned_so_far(datasets, handler):
    settings = config("linear", "model.epochs=5", "fit.warmup_fraction=0")
    model, history = fitted(settings, datasets, lambda report: press_ctrl_c() if report.step == 2 else None)
    assert (history.ended, len(history.loss), history.best_epoch) == ("interrupted", 1, 1)
    assert validation_loss(model, datasets) == pytest.approx(history.validation_loss[0], abs=1e-5)


def test_ctrl_c_during_validation_starts_no_other_epoch(datasets, handler):
    pressed: list[int] = []

    def press_once(label_id: tf.Tensor) -> tf.Tensor:
        if not pressed:
            pressed.append(1)
            press_ctrl_c()
        return label_id

    def through_press_once(token_ids: tf.Tensor, label_id: tf.Tensor, position: tf.Tensor) -> tuple:
        return token_ids, tf.ensure_shape(tf.py_function(press_once, [label_id], tf.int32), []), position

    validation = dataclasses.replace(datasets.validation, rows=datasets.validation.rows.map(through_press_once))
    reports: list[EpochReport] = []
    pressing = dataclasses.replace(datasets, validation=validation)
    _, history = fitted(config("linear", "model.epochs=4", "fit.patience=4"), pressing, reports.append)
    assert pressed
    assert history.ended == "interrupted"
    assert {report.epoch for report in reports} == {1}


def test_a_second_ctrl_c_ends_the_program_as_usual(datasets, handler):
    def listen(report: EpochReport) -> None:
        if report.step == 2 or report.validation_loss is not None:
            press_ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        fitted(config("linear", "model.epochs=2"), datasets, listen)
    assert signal.getsignal(signal.SIGINT) is handler


def test_where_the_signal_is_ignored_it_stays_ignored(datasets, handler):
    """As in a job that a shell started in the background: Ctrl-C is meant for another program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = config("linear", "model.epochs=1")
    _, history = fitted(settings, datasets, lambda report: press_ctrl_c() if report.step == 2 else None)
    assert history.ended == "all epochs"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_fitting_in_another_thread_leaves_signals_alone(datasets, handler):
    histories: list[History] = []
    seen: list[object] = []
    settings = config("linear", "model.epochs=1")

    def run() -> None:
        _, history = fitted(settings, datasets, lambda _: seen.append(signal.getsignal(signal.SIGINT)))
        histories.append(history)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert histories[0].ended == "all epochs"
    assert set(seen) == {handler}


# A loss that is lost


def test_a_loss_that_is_not_finite_names_the_learning_rate(datasets, handler):
    settings = config("linear", "model.learning_rate=1e38", "model.epochs=1", "fit.warmup_fraction=0")
    expected = r"loss of linear became (nan|inf) in epoch 1, step \d: lower model.learning_rate \(1e\+38\)"
    with pytest.raises(FloatingPointError, match=expected):
        fitted(settings, datasets)
    assert signal.getsignal(signal.SIGINT) is handler


def test_weights_that_the_last_step_broke_are_not_kept_in_silence(splits, vocabulary):
    tokenizer = Tokenizer(vocabulary, PipelineConfig(sequence_length=16, batch_size=512))  # an epoch is one step
    train, validation = (
        encode_split(part, tokenizer, Path("not-needed")) for part in (splits.train, splits.validation)
    )
    assert train.steps == 1
    settings = config("linear", "model.learning_rate=1e38", "fit.warmup_fraction=0", "model.epochs=1")
    with pytest.raises(FloatingPointError, match=r"in .*validation.*: lower model.learning_rate \(1e\+38\)"):
        fitted(settings, Datasets(train, validation, validation, tokenizer))


# Parts worked by hand


def rates(settings: RunConfig, total_steps: int, steps: list[int]) -> list[float]:
    schedule = make_optimizer(settings, total_steps)._learning_rate
    return [float(schedule(step)) for step in steps]


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine():
    settings = config("lstm", "model.learning_rate=0.01", "fit.warmup_fraction=0.1")
    # 10 steps up; then 90 steps down, of which step 55 is the middle and step 40 a third: 0.01 (1 + cos 60) / 2.
    given = rates(settings, 100, [0, 1, 5, 10, 40, 55, 100])
    assert given == pytest.approx([0, 0.001, 0.005, 0.01, 0.0075, 0.005, 0], abs=1e-8)
    every = rates(settings, 100, list(range(10, 101)))
    assert every == sorted(every, reverse=True)


def test_without_warm_up_the_learning_rate_starts_at_its_peak():
    settings = config("lstm", "model.learning_rate=0.01", "fit.warmup_fraction=0")
    assert rates(settings, 100, [0, 50, 100]) == pytest.approx([0.01, 0.005, 0], abs=1e-8)


def test_with_nothing_but_warm_up_the_learning_rate_rises_to_the_end():
    settings = config("lstm", "model.learning_rate=0.01", "fit.warmup_fraction=1")
    assert rates(settings, 100, [0, 50, 99]) == pytest.approx([0, 0.005, 0.0099], abs=1e-8)


def test_kernels_decay_and_biases_and_scales_do_not():
    settings = config("lstm", "model.learning_rate=0.1", "fit.warmup_fraction=0", "model.weight_decay=0.5")
    optimizer = make_optimizer(settings, 1_000_000)
    variables = [keras.Variable(np.ones(3, "float32"), name=name) for name in ("kernel", "bias", "gamma", "beta")]
    optimizer.apply([np.zeros(3, "float32")] * 4, variables)
    values = [float(variable.numpy()[0]) for variable in variables]
    assert values == pytest.approx([1 - 0.1 * 0.5, 1, 1, 1])


def test_smoothing_spreads_its_share_over_all_classes():
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]], "float32"))
    label_ids = np.array([1, 0], "int32")
    # Targets (0.1, 0.9) and (0.9, 0.1).
    expected = [-(0.1 * math.log(0.25) + 0.9 * math.log(0.75)), math.log(2)]
    np.testing.assert_allclose(smoothed_cross_entropy(0.2)(label_ids, logits), expected, rtol=1e-6)
    np.testing.assert_allclose(smoothed_cross_entropy(0)(label_ids, logits), [-math.log(0.75), math.log(2)], rtol=1e-6)


def test_smoothing_over_three_classes():
    logits = np.log(np.array([[0.2, 0.3, 0.5]], "float32"))
    expected = -(0.1 * math.log(0.2) + 0.1 * math.log(0.3) + 0.8 * math.log(0.5))
    np.testing.assert_allclose(smoothed_cross_entropy(0.3)(np.array([[2]]), logits), [expected], rtol=1e-6)


def test_balanced_weights_are_the_inverse_of_a_class_share():
    balanced = config("linear", "fit.class_weights=balanced")
    assert class_weights(np.array([0, 0, 0, 1]), balanced) == pytest.approx({0: 4 / 6, 1: 2})
    assert class_weights(np.array([2, 0, 1, 2, 2, 2]), balanced) == pytest.approx({0: 2, 1: 2, 2: 0.5})
    assert class_weights(np.array([0, 0, 0, 1]), config("linear")) is None


def test_balanced_weights_raise_the_probability_of_a_rare_class(splits, vocabulary):
    # The label says nothing of the text, so that only the share of the classes can be learned.
    label_ids = (np.arange(len(splits.train)) % 8 == 0).astype(np.int32)
    train = dataclasses.replace(splits.train, label_ids=label_ids)
    tokenizer = Tokenizer(vocabulary, PIPELINE)
    encoded = encode_split(train, tokenizer, Path("not-needed"))
    unbalanced = Datasets(encoded, encoded, encoded, tokenizer)
    rare = {}
    for weights in ("none", "balanced"):
        overrides = [*START["linear"], "model.learning_rate=0.1", "model.epochs=2"]
        model, _ = fitted(config("linear", f"fit.class_weights={weights}", *overrides), unbalanced)
        logits = predict_logits(model, encoded)
        rare[weights] = float(np.mean(1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))))
    assert rare["none"] < 0.3
    assert rare["balanced"] > rare["none"] + 0.1


# What a model takes from the data before training


def test_linear_counts_the_training_split_and_no_other(datasets):
    settings = config("linear", "model.epochs=1")
    model, _ = fitted(settings, datasets)
    by_hand, with_validation = build(settings), build(settings)
    adapt = MODELS["linear"].adapt
    assert adapt is not None
    adapt(by_hand, settings.model, datasets.train.labelled_batches())
    both = [*datasets.train.labelled_batches(), *datasets.validation.labelled_batches()]
    adapt(with_validation, settings.model, both)
    ratios = [keras.ops.convert_to_numpy(it.get_layer("logits").ratios) for it in (model, by_hand, with_validation)]
    np.testing.assert_array_equal(ratios[0], ratios[1])
    assert not np.array_equal(ratios[0], ratios[2])
