"""Learning from texts without labels: what an encoder is asked, going on after a kill, starting from the result."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from conftest import BAD, GOOD, NOUNS, small_config

from app.config import resolve_config
from app.errors import RequestError
from app.initial_weights import InitConfig, Pretrained, start_from
from app.language_fitting import StepReport
from app.pretrained_runs import locate
from app.pretraining import Outcome, pretrain
from app.pretraining_config import PretrainingConfig, resolve_pretraining
from app.tracking import Tracker
from app.training import build_model, prepare
from data.sources import DataConfig
from models import MODELS
from models import language_modelling as lm
from models.wide import beside_ngrams
from models.windows import read_in_windows

TINY = ["pipeline.sequence_length=24", "language.window=24", "language.batch_size=16", "language.steps=6"]
SIZES = {
    "lstm": ["model.embedding_dim=16", "model.hidden_dim=8"],
    "transformer": ["model.embedding_dim=16", "model.num_heads=2", "model.intermediate_dim=16"],
}


class Heard:
    """A reporter that remembers the steps and the lines."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.lines: list[str] = []

    def doing(self, what: str) -> None:
        """Not remembered."""

    def downloaded(self, done: int, total: int | None) -> None:
        """Not remembered."""

    def line(self, text: str) -> None:
        self.lines.append(text)

    def step(self, kind: str, report: StepReport) -> None:
        self.steps.append(report.step)


class Killed(Exception):  # noqa: N818 - no error: what stands for a kill
    pass


class Killing(Heard):
    """Ends a pretraining at a step, or at a line that starts so."""

    def __init__(self, at_step: int = 0, at_line: str = "nowhere") -> None:
        super().__init__()
        self._at_step, self._at_line = at_step, at_line

    def line(self, text: str) -> None:
        super().line(text)
        if text.startswith(self._at_line):
            raise Killed

    def step(self, kind: str, report: StepReport) -> None:
        super().step(kind, report)
        if report.step == self._at_step:
            raise Killed


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, reviews: Path) -> Path:
    """A text a line: 60 made up, and one review of each film of the labelled file, on whatever side of the splits."""
    chance = random.Random(5)
    words = [*GOOD, *BAD, *NOUNS]
    lines = [" ".join(["the", *chance.choices(words, k=9)]) for _ in range(60)]
    lines += [line.split(",")[0] for line in reviews.read_text(encoding="utf-8").splitlines()[1::4]]
    path = tmp_path_factory.mktemp("texts") / "lines.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def config_of(kind: str, texts: Path, *overrides: str, init: InitConfig | None = None) -> PretrainingConfig:
    sizes = ["vectors.dim=16", "vectors.workers=1"] if kind == "vectors" else [*TINY, *SIZES[kind]]
    settings = ["vocabulary.size=150", *sizes, *overrides]
    config = resolve_pretraining(kind, settings, {"text": {"source": str(texts)}})
    return config if init is None else config.model_copy(update={"init": init})


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pretraining") / "artifacts"


@pytest.fixture(scope="module")
def vectors(texts: Path, artifacts: Path) -> Outcome:
    named = config_of("vectors", texts, "vectors.epochs=2").model_copy(update={"name": "first"})
    return pretrain(named, artifacts, Heard())


def encoder_config(vectors: Outcome, texts: Path, artifacts: Path) -> PretrainingConfig:
    init = InitConfig(runs=(vectors.run_id,), folders=(Tracker(artifacts).fetch(vectors.run_id, "pretrained"),))
    return config_of("transformer", texts, "language.checkpoint_steps=2", "model.embedding_dropout=0.3", init=init)


@pytest.fixture(scope="module")
def encoded(vectors: Outcome, texts: Path, artifacts: Path) -> Outcome:
    """A Transformer that started from the vectors, trained in one go."""
    config = encoder_config(vectors, texts, artifacts).model_copy(update={"name": "whole"})
    return pretrain(config, artifacts, Heard())


def left_by(outcome: Outcome, artifacts: Path) -> Pretrained:
    return Pretrained.load(Tracker(artifacts).fetch(outcome.run_id, "pretrained"))


# What is asked of an encoder


def test_masking_hides_the_share_that_was_wanted_and_asks_for_nothing_else():
    token_ids = np.random.default_rng(0).integers(3, 500, (64, 128)).astype(np.int32)
    token_ids[:, 0], token_ids[:, 100:] = 2, 0
    token_ids[5, 10] = lm.MASK_ID
    task = lm.masked_task(token_ids, np.random.default_rng(1), share=0.15, vocabulary_size=500)
    pieces = int((token_ids >= 3).sum())
    assert len(task.rows) / pieces == pytest.approx(0.15, abs=0.015)
    np.testing.assert_array_equal(task.target_ids, token_ids[task.rows, task.positions])
    assert task.target_ids.min() >= 3  # neither padding, nor [CLS], nor what is unknown
    changed = task.token_ids != token_ids
    chosen = np.zeros_like(changed)
    chosen[task.rows, task.positions] = True
    assert not (changed & ~chosen).any()
    hidden = task.token_ids[task.rows, task.positions] == lm.MASK_ID
    assert hidden.mean() == pytest.approx(0.8, abs=0.04)
    assert (~changed[task.rows, task.positions]).mean() == pytest.approx(0.1, abs=0.04)


def test_a_language_model_is_asked_for_the_next_and_the_last_piece_worked_by_hand():
    task = lm.directions_task(np.array([[2, 7, 8, 9, 0]], np.int32), both=True)
    asked = list(zip(task.positions.tolist(), task.target_ids.tolist(), strict=True))
    assert asked[: task.num_forward] == [(0, 7), (1, 8), (2, 9)]
    assert asked[task.num_forward :] == [(2, 7), (3, 8)]


def test_the_states_of_an_lstm_do_not_see_the_piece_they_predict():
    lstm = encoder("lstm")
    directions = lm.reading_directions(lstm, 100, 24)
    assert directions is not None
    assert len(directions.forward) == len(directions.backward) == 8
    token_ids = np.random.default_rng(2).integers(3, 100, (2, 24)).astype(np.int32)
    task = lm.directions_task(token_ids, both=True)
    states = np.asarray(lstm(token_ids, training=False))
    for number in (3, task.num_forward + 3):  # a target of each half
        forward = number < task.num_forward
        row, position = task.rows[number], task.positions[number]
        other = token_ids.copy()
        other[row, position + (1 if forward else -1)] = 3 + (task.target_ids[number] - 2) % 97
        half = directions.forward if forward else directions.backward
        moved = np.asarray(lstm(other, training=False))
        np.testing.assert_array_equal(moved[row, position][half], states[row, position][half])
        assert not np.array_equal(moved, states)


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [("transformer", []), ("lstm", ["model.stem_kernel=3"]), ("lstm", ["model.stem_kernel=3", "model.stem_pooling=4"])],
)
def test_an_encoder_that_sees_both_sides_is_found_out(kind: str, overrides: list[str]):
    assert lm.reading_directions(encoder(kind, *overrides), 100, 24) is None


def test_pooled_states_predict_each_of_their_pieces():
    pooled = encoder("lstm", "model.stem_kernel=3", "model.stem_pooling=4")
    assert lm.pooling_of(pooled, 24) == 4
    head = lm.PieceHead(16, pooling=4)
    states = np.random.default_rng(0).normal(size=(1, 6, 16)).astype(np.float32)
    head.build(states.shape)
    found = head(states, rows=np.zeros(2, np.int32), positions=np.array([8, 9], np.int32), num_forward=2)
    assert found.shape == (2, 16)
    assert not np.allclose(found[0], found[1])  # two pieces of the state at place 2


def test_the_sampled_loss_with_every_piece_sampled_is_the_full_one():
    chance = np.random.default_rng(3)
    vectors, table = (chance.normal(size=size).astype(np.float32) for size in ((5, 4), (9, 4)))
    bias, targets = chance.normal(size=9).astype(np.float32), np.array([0, 1, 2, 8, 8], np.int32)
    every = np.arange(9, dtype=np.int32)
    sampled = lm.sampled_loss(vectors, table, bias, targets, every, np.zeros(9, np.float32))
    np.testing.assert_allclose(sampled, lm.full_loss(vectors, table, bias, targets), rtol=1e-5)


def encoder(kind: str, *overrides: str):
    config = resolve_pretraining(kind, [*SIZES[kind], *overrides], {}).model
    return lm.encoder_of(MODELS[kind].build(config, vocabulary_size=100, num_classes=2, sequence_length=24))


@pytest.mark.parametrize("kind", ["lstm", "cnn"])  # with a layer `states`, and without one
def test_the_embedding_is_found_in_windows_and_beside_ngrams_too(kind: str):
    sizes = SIZES.get(kind, ["model.embedding_dim=16", "model.filters=4"])
    config = resolve_pretraining(kind, [*sizes, "model.wide_buckets=64"], {}).model
    network = MODELS[kind].build(config, vocabulary_size=100, num_classes=2, sequence_length=24)
    table = lm.embedding_table(network)
    assert table.shape == (100, 16)
    in_windows = read_in_windows(network, 24, 12)
    for model in (in_windows, beside_ngrams(network, config, 100), beside_ngrams(in_windows, config, 100)):
        assert lm.embedding_table(model) is table


def test_ngrams_alone_have_no_embedding():
    config = resolve_config("linear", {}, ["model.num_buckets=64"]).model
    linear = MODELS["linear"].build(config, vocabulary_size=100, num_classes=2, sequence_length=24)
    assert lm.embedding_table(linear) is None


# Going on


@pytest.mark.slow
def test_an_interrupted_pretraining_goes_on_to_the_same_weights(
    encoded: Outcome, vectors: Outcome, texts: Path, artifacts: Path
):
    config = encoder_config(vectors, texts, artifacts)
    with pytest.raises(Killed):
        pretrain(config, artifacts, Killing(at_step=5))
    again = Heard()
    outcome = pretrain(config, artifacts, again)
    assert again.steps == [5, 6]  # from the checkpoint after step 4
    assert "error" not in Tracker(artifacts).client.get_run(outcome.run_id).data.tags  # that of the killed start
    resumed, whole = left_by(outcome, artifacts), left_by(encoded, artifacts)
    for name, value in whole.weights.items():
        np.testing.assert_allclose(resumed.weights[name], value, atol=1e-6)
    finished = Heard()
    assert pretrain(config, artifacts, finished).again
    assert finished.steps == []


def test_a_language_model_learns_in_both_directions(texts: Path, artifacts: Path):
    heard = Heard()
    outcome = pretrain(config_of("lstm", texts, "language.steps=2"), artifacts, heard)
    assert heard.steps == [1, 2]
    assert Tracker(artifacts).client.get_run(outcome.run_id).data.tags["objective"] == "directions"


def test_vectors_killed_after_an_epoch_go_on_with_the_next(vectors: Outcome, texts: Path, artifacts: Path):
    config = config_of("vectors", texts, "vectors.epochs=2")
    with pytest.raises(Killed):
        pretrain(config, artifacts, Killing(at_line="epoch 1 of 2"))
    heard = Heard()
    resumed = left_by(pretrain(config, artifacts, heard), artifacts)
    assert [line.split("   ")[0] for line in heard.lines if line.startswith("epoch")] == ["epoch 2 of 2"]
    whole = left_by(vectors, artifacts)
    np.testing.assert_array_equal(resumed.weights["embedding/0"], whole.weights["embedding/0"])


# Starting from it


def located(config, artifacts: Path):
    (found,) = locate([config], lambda: Tracker(artifacts))
    return found


def test_training_starts_from_the_vectors_and_the_head_stays_random(
    vectors: Outcome, artifacts: Path, reviews: Path, tmp_path: Path
):
    run = left_by(vectors, artifacts)
    config = located(small_config("lstm", reviews, 'init.runs=["first"]'), artifacts)
    assert config.init.runs == (vectors.run_id,)
    assert config.init.starts_from == "vectors learned from lines (120 texts)"
    material = prepare(config, tmp_path, Heard())
    assert material.vocabulary == run.vocabulary
    assert material.fingerprints["vocabulary"] == run.vocabulary.fingerprint
    model = build_model(config, material)
    head = model.get_layer("logits").get_weights()
    start_from(model, "lstm", material.start)
    np.testing.assert_array_equal(lm.embedding_table(model).numpy(), run.weights["embedding/0"])
    for before, after in zip(head, model.get_layer("logits").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_training_knows_how_many_test_texts_the_outside_text_held(
    vectors: Outcome, artifacts: Path, reviews: Path, texts: Path, tmp_path: Path
):
    config = located(small_config("linear", reviews, 'init.runs=["first"]'), artifacts)
    material = prepare(config, tmp_path, Heard())
    lines = set(texts.read_text(encoding="utf-8").splitlines())
    held = {name: sum(text in lines for text in split.texts) for name, split in material.splits.items()}
    assert material.seen == {"validation": held["validation"], "test": held["test"]}
    assert sum(material.seen.values()) > 0
    data = DataConfig(source=str(reviews), text_column="review", label_column="stars", group_column="film")
    clean = config_of("vectors", texts, "vectors.epochs=1").model_copy(update={"leave_out": (data,)})
    outcome = pretrain(clean, artifacts, Heard())
    assert outcome.facts.num_texts == 120 - sum(material.seen.values())
    of_clean = located(small_config("linear", reviews, f'init.runs=["{outcome.run_id}"]'), artifacts)
    assert prepare(of_clean, tmp_path, Heard()).seen == {"validation": 0, "test": 0}


def test_an_encoder_starts_from_vectors_and_a_model_from_the_encoder(
    encoded: Outcome, artifacts: Path, reviews: Path, tmp_path: Path
):
    assert str(encoded.facts).endswith("which started from vectors learned from lines (120 texts)")
    run = left_by(encoded, artifacts)
    config = located(small_config("transformer", reviews, f'init.runs=["{encoded.run_id}"]'), artifacts)
    material = prepare(config, tmp_path, Heard())
    model = build_model(config, material)
    start_from(model, "transformer", material.start)
    for layer in lm.encoder_of(model).layers:
        for number, value in enumerate(layer.get_weights()):
            np.testing.assert_array_equal(value, run.weights[f"{layer.name}/{number}"])
    wider = located(
        small_config("transformer", reviews, f'init.runs=["{encoded.run_id}"]', "model.intermediate_dim=32"), artifacts
    )
    with pytest.raises(RequestError, match=r"block_0 is 16 x 32, and what it should start from 16 x 16"):
        start_from(build_model(wider, material), "transformer", material.start)


def test_an_embedding_of_another_size_is_refused_with_the_setting_that_helps(
    vectors: Outcome, artifacts: Path, reviews: Path, tmp_path: Path
):
    wanted = small_config("lstm", reviews, 'init.runs=["first"]', "model.embedding_dim=8")
    config = located(wanted, artifacts)
    material = prepare(config, tmp_path, Heard())
    with pytest.raises(RequestError, match=r"x 8, and .* x 16: --set model\.embedding_dim=16"):
        start_from(build_model(config, material), "lstm", material.start)


def test_runs_that_do_not_share_their_vocabulary_are_refused(
    vectors: Outcome, artifacts: Path, texts: Path, reviews: Path, tmp_path: Path
):
    other = pretrain(config_of("vectors", texts, "vocabulary.size=120", "vectors.epochs=1"), artifacts, Heard())
    both = located(small_config("lstm", reviews, f'init.runs=["{vectors.run_id}", "{other.run_id}"]'), artifacts)
    with pytest.raises(RequestError, match="do not share their vocabulary"):
        prepare(both, tmp_path, Heard())


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("linear", [], "cannot pretrain 'linear'. Known: vectors, lstm"),
        ("vectors", ["model.hidden_dim=3"], r"--set model\.\* means nothing for vectors"),
        ("lstm", ["vectors.dim=3"], r"--set vectors\.\* means nothing for lstm"),
        ("lstm", ["language.masked_share=2"], "language.masked_share = 2"),
        ("lstm", ["language.window=512", "pipeline.sequence_length=256"], "language.window = 512: at most"),
    ],
)
def test_a_wrong_setting_is_refused(kind: str, settings: list[str], said: str):
    with pytest.raises(RequestError, match=said):
        resolve_pretraining(kind, settings, {})
