"""The n-grams beside an encoder: what they add, how each learns, and the encoder without them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import Experiment, Silent, small_config
from test_models import NUM_CLASSES, SEQUENCE_LENGTH, VOCABULARY_SIZE, logits, token_ids

from app.fitting import INTERRUPTED, EpochReport, fit
from app.fusion import LARGEST, fit_logit_weights
from app.training import Material, build_model, portable_copy, prepare, weigh_parts
from models import MODELS
from models.wide import beside_ngrams, encoder_and_ngrams


def wide(name: str = "cnn") -> keras.Model:
    keras.utils.set_random_seed(0)
    entry = MODELS[name]
    config = entry.config(wide_buckets=512)
    sizes = {"vocabulary_size": VOCABULARY_SIZE, "num_classes": NUM_CLASSES, "sequence_length": SEQUENCE_LENGTH}
    return beside_ngrams(entry.build(config, **sizes), config, VOCABULARY_SIZE)


def test_the_logits_are_the_weighted_sum_of_both():
    model, ids = wide(), token_ids(4)
    encoder, ngrams = encoder_and_ngrams(model)
    assert (encoder.name, ngrams.name, model.name) == ("cnn", "linear", "cnn")
    model.get_layer("logits").logit_weights.assign([0.25, 2.0])
    np.testing.assert_allclose(logits(model, ids), 0.25 * logits(encoder, ids) + 2 * logits(ngrams, ids), atol=1e-5)


def test_without_ngrams_the_encoder_is_the_model():
    entry = MODELS["cnn"]
    model = entry.build(
        entry.config(), vocabulary_size=VOCABULARY_SIZE, num_classes=NUM_CLASSES, sequence_length=SEQUENCE_LENGTH
    )
    assert encoder_and_ngrams(model) == (model, None)


def test_saved_and_loaded_it_answers_the_same(tmp_path):
    model, ids = wide(), token_ids(4)
    model.get_layer("logits").logit_weights.assign([0.5, 1.5])
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(model, ids), logits(keras.models.load_model(tmp_path / "model.keras"), ids))


# Weights, from validation


def made_logits(rows: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    label_ids = generator.integers(0, 3, rows)
    return np.eye(3)[label_ids] + noise * generator.normal(size=(rows, 3)), label_ids


def log_loss(weights: np.ndarray, answers: list[np.ndarray], label_ids: np.ndarray) -> float:
    total = sum(weight * answer for weight, answer in zip(weights, answers, strict=True))
    total = total - total.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(total).sum(axis=1)) - total[np.arange(len(label_ids)), label_ids]))


def test_no_weights_on_a_grid_are_better():
    good, label_ids = made_logits(400, 1.0, seed=0)
    worse = good + np.random.default_rng(1).normal(size=good.shape) * 2
    found = fit_logit_weights([good, worse], label_ids)
    best = min(
        log_loss(np.array([first, second]), [good, worse], label_ids)
        for first in np.linspace(0, 3, 31)
        for second in np.linspace(0, 3, 31)
    )
    assert log_loss(found, [good, worse], label_ids) <= best + 1e-3


def test_an_answer_of_chance_gets_next_to_nothing_and_never_less():
    good, label_ids = made_logits(400, 1.0, seed=0)
    chance = np.random.default_rng(2).normal(size=good.shape)
    found = fit_logit_weights([good, chance], label_ids)
    assert found[0] > 0.5
    assert 0 <= found[1] < 0.15


def test_answers_that_are_all_wrong_get_equal_weights():
    good, label_ids = made_logits(100, 0.1, seed=0)
    np.testing.assert_allclose(fit_logit_weights([-good, -2 * good], label_ids), [0.5, 0.5])


def test_a_validation_split_without_an_error_calls_for_no_endless_weights():
    good, label_ids = made_logits(30, 0.01, seed=0)
    assert (fit_logit_weights([good, good], label_ids) < LARGEST).all()


# In training


@pytest.fixture(scope="module")
def material(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    return prepare(small_config("cnn", reviews), tmp_path_factory.mktemp("wide"), Silent())


def reports_of(config, material: Material, interrupt_at: str = "") -> tuple[keras.Model, list[EpochReport], str]:
    reports: list[EpochReport] = []

    def listen(report: EpochReport) -> None:
        if interrupt_at == (report.part or "encoder") and report.step == 1 and report.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        reports.append(report)

    model = build_model(config, material)
    history = fit(model, material.datasets, config, listen)
    return model, reports, history.ended


TINY = ("model.embedding_dim=8", "model.filters=8", "model.epochs=2")


def test_encoder_and_ngrams_are_told_apart_and_both_learn(material, reviews):
    config = small_config("cnn", reviews, *TINY)
    model, reports, ended = reports_of(config, material)
    assert {report.part for report in reports} == {"", "n-grams"}
    assert {report.model_name for report in reports} == {"cnn"}
    assert ended in ("all epochs", "stopped early")
    weigh_parts(model, material.datasets.validation)
    weights = keras.ops.convert_to_numpy(model.get_layer("logits").logit_weights)
    assert not np.array_equal(weights, [1, 1])
    _, ngrams = encoder_and_ngrams(model)
    assert keras.ops.convert_to_numpy(ngrams.get_layer("logits").learned).any()
    given = token_ids(4)
    portable = portable_copy(model, config, material)
    np.testing.assert_array_equal(logits(model, given), logits(portable, given))


def test_ctrl_c_while_the_encoder_learns_leaves_ngrams_that_only_counted(material, reviews):
    model, reports, ended = reports_of(small_config("cnn", reviews, *TINY), material, interrupt_at="encoder")
    assert ended == INTERRUPTED
    assert {report.part for report in reports} == {""}
    layer = encoder_and_ngrams(model)[1].get_layer("logits")
    assert len(np.unique(keras.ops.convert_to_numpy(layer.ratios))) > 1
    assert not keras.ops.convert_to_numpy(layer.learned).any()


def test_ctrl_c_while_the_ngrams_learn_keeps_the_encoder_and_is_told(material, reviews):
    _, reports, ended = reports_of(small_config("cnn", reviews, *TINY), material, interrupt_at="n-grams")
    assert ended == INTERRUPTED
    assert max(report.epoch for report in reports if not report.part) == 2
    assert len([report for report in reports if report.part and report.validation_loss is None]) == 1


def test_a_loss_of_the_ngrams_that_is_lost_is_told_as_theirs(material, reviews):
    config = small_config("cnn", reviews, *TINY)
    model = build_model(config, material)
    _, ngrams = encoder_and_ngrams(model)
    ngrams.get_layer("logits").bias.assign([np.nan, np.nan])
    with pytest.raises(FloatingPointError, match=r"the n-grams beside cnn became nan .* model\.wide=false"):
        fit(model, material.datasets, config, lambda report: None)


def test_the_encoder_alone_is_evaluated_and_told(experiment: Experiment):
    for candidate in experiment.outcome.candidates:
        if candidate.run.name == "linear":
            assert candidate.encoder_note is None
        else:
            assert candidate.encoder_note.startswith(f"{candidate.run.name} without the n-grams beside it: accuracy 0.")
            assert candidate.encoder_note in candidate.notes
            assert candidate.run.encoder_evaluation.count == candidate.run.evaluation.count
