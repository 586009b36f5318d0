"""Long texts by windows: cut as worked by hand, the contract of every model kept, and read whole once it is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_config
from pydantic import ValidationError
from test_models import TOLERANCE, VOCABULARY_SIZE, build
from test_pipeline import ALPHABET, encode, letters, rows_of

from app.analysis.truncation import truncation_ledger
from app.export import write_saved_model
from app.fitting import smoothed_cross_entropy
from app.serving.predictor import Predictor
from app.serving.reading import Reading, read_reading
from app.training import prepare, train
from data.pipeline import PipelineConfig, Tokenizer, bucket_batch_sizes, bucket_lengths, pipeline_fingerprint
from models import MODELS
from models.windows import WINDOWS_AT_ONCE, cut_windows, read_in_windows, without_windows

WINDOW, STRIDE = 6, 3


def rows(*lengths: int, time: int = 0) -> np.ndarray:
    """Rows of [CLS] (2) and so many pieces, padded with 0 to the longest or to `time`."""
    ids = np.zeros((len(lengths), max(time, 1 + max(lengths))), "int32")
    rng = np.random.default_rng(7)
    for row, length in zip(ids, lengths, strict=True):
        row[0] = 2
        row[1 : 1 + length] = rng.integers(3, VOCABULARY_SIZE, length)
    return ids


# Cutting


def test_windows_are_those_worked_by_hand():
    ids = np.array(
        [[2, 11, 12, 13, 14, 15, 16, 17, 18, 19], [2, 21, 22, 23, 24, 25, 0, 0, 0, 0], [2] + [0] * 9], "int32"
    )
    found = cut_windows(tf.constant(ids), WINDOW, STRIDE)
    assert found.token_ids.numpy().tolist() == [
        [2, 11, 12, 13, 14, 15],
        [2, 14, 15, 16, 17, 18],
        [2, 17, 18, 19, 0, 0],
        [2, 21, 22, 23, 24, 25],  # a row that just fits is one window
        [2, 0, 0, 0, 0, 0],
    ]
    assert found.row.numpy().tolist() == [0, 0, 0, 1, 2]
    np.testing.assert_allclose(found.weight, [5 / 9, 3 / 9, 1 / 9, 1, 1], rtol=1e-6)


def test_a_batch_of_short_rows_is_taken_as_it_is():
    ids = rows(3, 1, 0)
    found = cut_windows(tf.constant(ids), WINDOW, STRIDE)
    np.testing.assert_array_equal(found.token_ids, ids)
    assert found.weight.numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize(("window", "stride"), [(6, 5), (6, 1), (2, 1), (4, 2)])
def test_every_piece_is_in_a_window_and_new_in_one(window, stride):
    for length in range(12):
        ids = np.array([[2, *range(10, 10 + length)]], "int32")
        found = cut_windows(tf.constant(np.pad(ids, [(0, 0), (0, 5)])), window, stride)
        bodies = [[piece for piece in row[1:] if piece] for row in found.token_ids.numpy().tolist()]
        seen: set[int] = set()
        for body, weight in zip(bodies, found.weight.numpy(), strict=True):
            new = set(body) - seen
            assert weight == pytest.approx(len(new) / max(length, 1) if length else 1)
            seen |= new
        assert sorted(seen) == list(range(10, 10 + length))
        assert all(len(body) > 0 for body in bodies[1:]), "a window of padding alone"


# The contract of every model, in windows


@dataclass(frozen=True)
class Pair:
    """A network and the same one reading in windows, and both as evaluation and serving call them."""

    base: keras.Model
    model: keras.Model
    base_logits: Callable[[np.ndarray], np.ndarray]
    logits: Callable[[np.ndarray], np.ndarray]


def traced(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """In a graph, for any number of rows and steps, traced once."""
    signature = [tf.TensorSpec([None, None], tf.int32)]
    graph = tf.function(lambda batch: model(batch, training=False), input_signature=signature)
    return lambda ids: graph(ids).numpy()


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request: pytest.FixtureRequest) -> Pair:
    base = build(request.param)
    model = read_in_windows(base, WINDOW, STRIDE)
    return Pair(base, model, traced(base), traced(model))


def test_it_is_the_same_network(pair):
    assert pair.model.name == pair.base.name
    assert without_windows(pair.model) is pair.base
    assert without_windows(pair.base) is pair.base
    for ours, theirs in zip(pair.model.weights, pair.base.weights, strict=True):
        assert ours is theirs
    assert not pair.model.get_layer("windows").supports_jit, "XLA cannot know how many windows there are"


def test_one_window_gets_exactly_the_network_s_own_answer(pair):
    ids = rows(5, 1, 0, 4)
    np.testing.assert_array_equal(pair.logits(ids), pair.base_logits(ids))


def test_a_long_row_gets_the_mean_over_its_windows_weighted_by_their_new_pieces(pair):
    ids = rows(9)
    windows = np.stack([ids[0, [0, *range(1, 6)]], ids[0, [0, *range(4, 9)]], [*ids[0, [0, 7, 8, 9]], 0, 0]])
    expected = np.array([5, 3, 1]) @ pair.base_logits(windows) / 9
    np.testing.assert_allclose(pair.logits(ids)[0], expected, atol=TOLERANCE)


def test_more_windows_than_are_read_at_once_get_the_same_mean(pair):
    ids = rows(4, 3 * WINDOWS_AT_ONCE + 20)
    windows = cut_windows(tf.constant(ids[1:]), WINDOW, STRIDE)
    assert len(windows.row) > WINDOWS_AT_ONCE
    expected = windows.weight.numpy() @ pair.base_logits(windows.token_ids.numpy())
    np.testing.assert_allclose(pair.logits(ids)[1], expected, atol=TOLERANCE)


def test_neither_padding_nor_batch_mates_nor_order_change_a_prediction(pair):
    lengths = (9, 0, 40, 5, 6, 23)
    ids = rows(*lengths)
    together = pair.logits(ids)
    alone = np.concatenate([pair.logits(ids[[row], : 1 + length]) for row, length in enumerate(lengths)])
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(together, alone, atol=TOLERANCE)
    np.testing.assert_allclose(pair.logits(np.pad(ids, [(0, 0), (0, 30)])), together, atol=TOLERANCE)
    np.testing.assert_allclose(pair.logits(ids[order]), together[order], atol=TOLERANCE)
    assert len(np.unique(together.round(6), axis=0)) == len(lengths)


def test_padding_alone_is_answered(pair):
    assert np.isfinite(pair.logits(np.zeros((2, 3), "int32"))).all()


def test_saved_and_loaded_it_answers_the_same(tmp_path):
    model, ids = read_in_windows(build("lstm"), WINDOW, STRIDE), rows(9, 3)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(traced(keras.models.load_model(tmp_path / "model.keras"))(ids), traced(model)(ids))


# The pipeline


def windowed(**settings: object) -> PipelineConfig:
    return PipelineConfig(**{"long": "window", "sequence_length": 21, "window_overlap": 0.5, **settings})


def test_only_the_longest_texts_are_cut():
    tokenizer = Tokenizer(ALPHABET, windowed(longest_text=50))
    assert tokenizer(tf.constant([letters(100)])).shape == (1, 50)
    assert tokenizer(tf.constant([letters(49)])).shape == (1, 50)
    assert tokenizer(tf.constant([letters(45)])).shape == (1, 46)


def test_buckets_go_on_in_windows_and_hold_fewer_rows():
    config = windowed(longest_text=100, batch_size=8)
    assert config.window_stride == 10
    assert bucket_lengths(config).tolist() == [16, 21, 31, 41, 51, 71, 91, 100]
    assert bucket_batch_sizes(config).tolist() == [8, 8, 4, 2, 2, 1, 1, 1]  # 1, 1, 2, 3, 4, 6, 8, 9 windows
    assert set(bucket_batch_sizes(PipelineConfig(batch_size=8)).tolist()) == {8}


def test_every_row_comes_once_in_as_many_batches_as_announced():
    counts = [0, 5, 20, 20, 20, 30, 31, 31, 45, 60, 150]
    config = windowed(longest_text=100, batch_size=2)
    encoded = encode([letters(count) for count in counts], **config.model_dump())
    for batches in (encoded.training_batches(seed=0), encoded.evaluation_batches()):
        found = rows_of(batches)
        assert sorted(len(row) for batch in found for row in batch) == sorted(min(count + 1, 100) for count in counts)
        assert len(found) == encoded.steps == int(batches.cardinality())
        assert max(len(batch) for batch in found) == 2


def test_in_a_batch_of_few_rows_each_has_the_say_it_has_in_a_full_one():
    label_ids, given = np.array([0, 1]), np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "float32")
    whole, few = (smoothed_cross_entropy(0.05, batch_size)(label_ids, given) for batch_size in (None, 8))
    np.testing.assert_allclose(np.mean(few), np.sum(whole) / 8, rtol=1e-6)


def test_a_ceiling_below_a_window_is_refused():
    with pytest.raises(ValidationError, match=r"longest_text must be at least sequence_length \(21\), and 20 is less"):
        windowed(longest_text=20)


def test_the_fingerprint_tells_windows_but_not_what_a_run_does_not_use():
    plain = pipeline_fingerprint(PipelineConfig())
    assert plain == pipeline_fingerprint(PipelineConfig(window_overlap=0.5, longest_text=5000))
    assert len({plain, *(pipeline_fingerprint(windowed(longest_text=size)) for size in (40, 50))}) == 3


# From the texts to an export

WORDS = 3_000


@pytest.fixture(scope="module")
def long_reviews(tmp_path_factory):
    """Reviews of 24 to 40 pieces, the last word of which alone tells the label."""
    path = tmp_path_factory.mktemp("long") / "long.csv"
    chance = np.random.default_rng(0)
    fillers = ["the", "film", "has", "a", "cast", "and", "script"]
    lines = ["review,stars,film"]
    for row in range(160):
        words = [*chance.choice(fillers, chance.integers(24, 40)), "awful" if row % 2 else "great"]
        lines.append(f"{' '.join(words)},{1 - row % 2},film {row}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Silent:
    def doing(self, what: str) -> None: ...

    def downloaded(self, done: int, total: int | None) -> None: ...


@pytest.fixture(scope="module")
def trained(long_reviews, tmp_path_factory):
    """An LSTM that was trained on long reviews, 16 pieces at once, with its export."""
    settings = ("pipeline.sequence_length=16", "pipeline.long=window", "pipeline.batch_size=64")
    steeper = ("model.learning_rate=0.03", "model.epochs=16", "model.embedding_dropout=0", "model.output_dropout=0")
    # Without the n-grams, which read a text whole whatever the encoder does.
    alone = ("model.wide=false",)
    folder = tmp_path_factory.mktemp("windows")
    config = small_config("lstm", long_reviews, *settings, *steeper, *alone)
    run = train(config, prepare(config, folder, Silent()), lambda report: None)
    write_saved_model(run, folder / "1", "long")
    return run, Predictor(folder / "1")


@pytest.mark.slow
def test_what_stands_behind_the_first_window_is_learned_and_served(trained):
    run, predictor = trained
    assert run.evaluation.metrics["accuracy"].value > 0.9
    served = predictor.predict(run.material.splits.test.texts).probabilities
    np.testing.assert_allclose(served, run.test_probabilities, atol=TOLERANCE)


@pytest.mark.slow
def test_a_served_text_is_read_to_its_very_last_word(trained):
    """With `truncate` the answers are equal: tests/test_export.py."""
    run, predictor = trained
    start = "the film has a cast " * (WORDS // 5)
    assert run.material.datasets.tokenizer.pieces(tf.constant([start])).row_lengths()[0] > WORDS
    great, awful = predictor.predict([f"{start}great", f"{start}awful"]).probabilities
    assert np.abs(great - awful).max() > 1e-4
    short = ["the film has a cast great", "the film has a cast awful"]
    together = predictor.predict([short[0], f"{start}great", short[1]]).probabilities
    np.testing.assert_allclose(together[[0, 2]], predictor.predict(short).probabilities, atol=TOLERANCE)
    np.testing.assert_allclose(together[1], great, atol=TOLERANCE)


@pytest.mark.slow
def test_the_export_says_that_it_reads_in_windows(trained):
    _, predictor = trained
    assert read_reading(predictor.servable.path) == Reading(longest_row=65_536, window=16, linear_memory=True)


@pytest.mark.slow
def test_ledger_and_card_say_that_nothing_is_lost(trained):
    run, _ = trained
    ledger, card = truncation_ledger(run.answers("lstm")["test"]), run.material.card
    assert ledger.sequence_length == card.sequence_length == 65_536
    assert ledger.total.pieces_lost == card.truncated_share == 0
    assert "100.0% in several windows of 16, 0.0% truncated at 65,536" in "\n".join(card.lines())
