"""The one road from text to batches: the same ids everywhere, every row once an epoch, orders that repeat."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_reviews
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.config import resolve_config
from app.training import prepare
from data.pipeline import (
    BUCKET_LENGTHS,
    Encoded,
    PipelineConfig,
    Tokenizer,
    bucket_lengths,
    encode_split,
    make_datasets,
    pipeline_fingerprint,
)
from data.splits import Split, Splits
from data.vocabulary import CLS, CLS_ID, PAD, PAD_ID, UNK, UNK_ID, Vocabulary, VocabularyConfig, learn_vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ALPHABET = Vocabulary((PAD, UNK, CLS, *LETTERS))  # `a` is 3, `b` is 4, ...
TEXTS = ["A great film, moving and clever.", "这部电影很好看", "фильм был скучным", "🎬 👍", "naïve GROẞ λόγος"]
ODD_TEXTS = {
    "empty": "",
    "white space": " \t\n\u2028\u3000",
    "one character": "a",
    "100k characters in one word": "x" * 100_000,
    "100k characters in words": "film " * 20_000,
    "emoji": "😀👍🏽🎬👩‍👩‍👧",
    "NUL": "\0",
    "NUL inside": "great\0film",
    "mixed scripts": "Great фильм 很好 فيلم 映画 ถ 😀 λόγος",
    "no characters": "\ufffe\uffff\U0010ffff\ue000",
    "marks on marks": "e" + "\u0301" * 500,
    "right to left": "\u202efilm\u202c",
    "special pieces written out": "[CLS] [PAD] [UNK] ##film",
}


def letters(count: int) -> str:
    """A text of so many pieces after [CLS]: a b c ..."""
    return " ".join(LETTERS[position % 26] for position in range(count))


def split_of(texts: list[str]) -> Split:
    return Split(tuple(texts), np.arange(len(texts), dtype=np.int32) % 3)


def encode(texts: list[str], cache: Path = Path("not-needed"), **config: object) -> Encoded:
    return encode_split(split_of(texts), Tokenizer(ALPHABET, PipelineConfig(**config)), cache)


def rows_of(batches: tf.data.Dataset) -> list[list[tuple[int, ...]]]:
    """One epoch: batches of rows, the padding left out."""
    return [[tuple(row[row != PAD_ID].tolist()) for row in batch[0].numpy()] for batch in batches]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    vocabulary = learn_vocabulary(TEXTS * 3, VocabularyConfig(size=300, min_frequency=1))
    return Tokenizer(vocabulary, PipelineConfig(sequence_length=64))


@pytest.fixture(scope="module")
def distinct() -> Encoded:
    """Sixty rows of 2 to 61 pieces, each of another length: a row is known by its length."""
    return encode([letters(count) for count in range(1, 61)], sequence_length=64, batch_size=8)


# Text to ids


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_any_text_becomes_a_row_that_starts_with_cls(tokenizer, text):
    (whole,) = tokenizer.pieces(tf.constant([text])).to_list()
    (cut,) = tokenizer(tf.constant([text])).numpy().tolist()
    assert whole[0] == cut[0] == CLS_ID
    assert len(cut) <= 64
    assert cut == whole[:64]
    learned = [piece for piece in whole[1:] if piece != UNK_ID]
    assert all(CLS_ID < piece < 300 for piece in learned)


def test_a_split_without_rows_has_no_lengths():
    encoded = encode([])
    assert len(encoded.lengths) == len(encoded.unknown) == 0


def test_an_empty_text_is_cls_alone(tokenizer):
    assert tokenizer(tf.constant(["", "\0", " "])).numpy().tolist() == [[CLS_ID]] * 3


def test_a_batch_mate_changes_nothing_but_the_padding(tokenizer):
    texts = list(ODD_TEXTS.values())
    together = tokenizer(tf.constant(texts)).numpy()
    for row, text in zip(together, texts, strict=True):
        (alone,) = tokenizer(tf.constant([text])).numpy()
        assert row[: len(alone)].tolist() == alone.tolist()
        assert not row[len(alone) :].any()


def test_the_graph_eager_and_an_export_give_the_same_ids(tokenizer, tmp_path):
    texts = tf.constant([*TEXTS, *ODD_TEXTS.values()])
    eager = tokenizer(texts).numpy()
    exported = tf.Module()
    exported.encode = tf.function(tokenizer.__call__, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(exported, str(tmp_path / "tokenizer"))
    loaded = tf.saved_model.load(str(tmp_path / "tokenizer"))
    np.testing.assert_array_equal(exported.encode(texts).numpy(), eager)
    np.testing.assert_array_equal(loaded.encode(texts).numpy(), eager)


def test_the_rows_of_a_split_are_what_the_tokenizer_gives(tokenizer):
    texts = [*TEXTS, *ODD_TEXTS.values()]
    encoded = encode_split(split_of(texts), tokenizer, Path("not-needed"))
    rows = [row.tolist() for row, _, _ in encoded.rows.as_numpy_iterator()]
    assert rows == tokenizer.truncate(tokenizer.pieces(tf.constant(texts))).to_list()


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_were_learned_from_hold_nothing_unknown(tokenizer, text):
    assert UNK_ID not in tokenizer.pieces(tf.constant([text])).to_list()[0]


@pytest.mark.parametrize("word", ["λόγος", "ΛΌΓΟΣ", "groß", "GROẞ", "ﬁlm", "ｆｉｌｍ", "ᏣᎳᎩ", "Amélie"])
def test_a_word_seen_often_is_one_piece_whatever_its_case_and_form(word):
    """The learner and the tokenizer must fold alike, or what is learned is never used."""
    vocabulary = learn_vocabulary([word] * 5, VocabularyConfig(size=300))
    (row,) = Tokenizer(vocabulary, PipelineConfig()).pieces(tf.constant([word])).to_list()
    assert row[1:] == [len(vocabulary) - 1]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_any_vocabulary_encodes_any_text(texts):
    vocabulary = learn_vocabulary([*texts[:2], "a"], VocabularyConfig(size=100, min_frequency=1))
    rows = Tokenizer(vocabulary, PipelineConfig()).pieces(tf.constant(texts)).to_list()
    assert all(row[0] == CLS_ID for row in rows)
    assert all(0 < piece < len(vocabulary) and piece != CLS_ID for row in rows for piece in row[1:])


# Truncation, worked by hand: `a` is 3, so the row of letters(n) is 2, 3, 4, ..., n + 2


@pytest.mark.parametrize(
    ("truncation", "limit", "count", "expected"),
    [
        ("head", 10, 12, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("head", 10, 9, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("head", 10, 2, [2, 3, 4]),
        ("head", 4, 26, [2, 3, 4, 5]),
        # 30% of 10 is 3 at the head, 7 at the tail.
        ("head+tail", 10, 12, [2, 3, 4, 8, 9, 10, 11, 12, 13, 14]),
        ("head+tail", 10, 10, [2, 3, 4, 6, 7, 8, 9, 10, 11, 12]),
        ("head+tail", 10, 9, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("head+tail", 10, 0, [2]),
        ("head+tail", 4, 26, [2, 26, 27, 28]),
        ("head+tail", 5, 26, [2, 3, 26, 27, 28]),
    ],
)
def test_long_rows_are_cut(truncation, limit, count, expected):
    tokenizer = Tokenizer(ALPHABET, PipelineConfig(sequence_length=limit, truncation=truncation))
    assert tokenizer(tf.constant([letters(count)])).numpy().tolist() == [expected]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    limit=st.integers(4, 40),
    truncation=st.sampled_from(["head", "head+tail"]),
)
def test_a_cut_row_is_a_head_and_a_tail_of_the_whole_one(lengths, limit, truncation):
    tokenizer = Tokenizer(ALPHABET, PipelineConfig(sequence_length=limit, truncation=truncation))
    whole = [list(range(CLS_ID, CLS_ID + length)) for length in lengths]
    head = limit if truncation == "head" else round(0.3 * limit)
    cut = tokenizer.truncate(tf.ragged.constant(whole, dtype=tf.int32)).to_list()
    assert cut == [row if len(row) <= limit else row[:head] + row[len(row) - limit + head :] for row in whole]


def test_rows_are_padded_with_0_on_the_right():
    tokenizer = Tokenizer(ALPHABET, PipelineConfig())
    assert PAD_ID == 0
    assert tokenizer(tf.constant(["a b c", "a", ""])).numpy().tolist() == [[2, 3, 4, 5], [2, 3, 0, 0], [2, 0, 0, 0]]


# A split, encoded


def test_lengths_are_those_before_truncation_and_unknown_pieces_are_counted():
    encoded = encode(["a b c d e f g", "é b", "", "? a ! b 7", "a b c d e f ?"], sequence_length=4)
    assert encoded.lengths.tolist() == [8, 3, 1, 6, 8]  # [CLS] counted
    assert encoded.unknown.tolist() == [0, 0, 0, 3, 1]  # ? ! 7, and the last ?, which truncation cuts off
    assert [len(row) for row, _, _ in encoded.rows.as_numpy_iterator()] == [4, 3, 1, 4, 4]


def test_rows_keep_the_order_of_the_split_with_labels_and_positions():
    encoded = encode(["c", "a", "b", "a b"])
    rows = [(row.tolist(), int(label), int(position)) for row, label, position in encoded.rows.as_numpy_iterator()]
    assert rows == [([2, 5], 0, 0), ([2, 3], 1, 1), ([2, 4], 2, 2), ([2, 3, 4], 0, 3)]
    assert len(encoded) == 4


class CountingTokenizer(Tokenizer):
    """Counts the texts that go through it, also in a graph."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self._sizes: list[int] = []  # appended to, since several threads count at once

    @property
    def count(self) -> int:
        return sum(self._sizes)

    def pieces(self, texts: tf.Tensor) -> tf.RaggedTensor:
        def counted(given: tf.Tensor) -> tf.Tensor:
            self._sizes.append(len(given))
            return given

        return super().pieces(tf.ensure_shape(tf.py_function(counted, [texts], tf.string), [None]))


@pytest.mark.parametrize("cache_limit_mb", [0, 1024])
def test_every_text_is_tokenised_once(tmp_path, cache_limit_mb):
    texts = [letters(count % 30) for count in range(600)]
    tokenizer = CountingTokenizer(ALPHABET, PipelineConfig(cache_limit_mb=cache_limit_mb))
    encoded = encode_split(split_of(texts), tokenizer, tmp_path)
    training = encoded.training_batches(seed=0)
    for batches in (training, training, encoded.training_batches(seed=1), encoded.evaluation_batches()):
        assert sum(len(batch) for batch in rows_of(batches)) == 600
    assert tokenizer.count == 600


def test_a_split_above_the_limit_is_cached_on_disk_and_one_below_in_memory(tmp_path):
    texts = [letters(count) for count in range(40)]
    memory = encode(texts, tmp_path / "memory", batch_size=4)
    disk = encode(texts, tmp_path / "disk", batch_size=4, cache_limit_mb=0)
    assert not (tmp_path / "memory").exists()
    assert sum(path.stat().st_size for path in (tmp_path / "disk").rglob("*") if path.is_file()) > 0
    assert rows_of(memory.evaluation_batches()) == rows_of(disk.evaluation_batches())
    in_memory, on_disk = memory.training_batches(seed=3), disk.training_batches(seed=3)
    for _ in range(2):
        assert rows_of(in_memory) == rows_of(on_disk)


def test_the_limit_counts_four_bytes_a_character(tmp_path):
    text = "a " * 1_000
    encode([text] * 125, tmp_path / "at", cache_limit_mb=1)
    encode([text] * 126, tmp_path / "above", cache_limit_mb=1)
    assert not (tmp_path / "at").exists()
    assert (tmp_path / "above").exists()


def test_two_caches_in_one_folder_do_not_meet(tmp_path):
    first = encode(["a b", "c"], tmp_path, cache_limit_mb=0)
    second = encode(["d", "e f g"], tmp_path, cache_limit_mb=0)
    assert rows_of(first.evaluation_batches()) == [[(2, 3, 4), (2, 5)]]
    assert rows_of(second.evaluation_batches()) == [[(2, 6), (2, 7, 8, 9)]]


def test_the_three_splits_are_encoded_by_one_tokenizer():
    parts = {"train": split_of(["a", "b", "c"]), "validation": split_of(["d"]), "test": split_of(["e", "f"])}
    splits = Splits("letters", "here", ("x", "y", "z"), **parts, counts={}, how="as given", fingerprint="0" * 64)
    datasets = make_datasets(splits, ALPHABET, PipelineConfig(), Path("not-needed"))
    rows = {name: rows_of(encoded.evaluation_batches()) for name, encoded in datasets.items()}
    assert rows == {"train": [[(2, 3), (2, 4), (2, 5)]], "validation": [[(2, 6)]], "test": [[(2, 7), (2, 8)]]}
    assert datasets.tokenizer(tf.constant(["z"])).numpy().tolist() == [[2, 28]]
    assert datasets.tokenizer.counted.experimental_get_tracing_count() == 1


# Batches


@pytest.mark.parametrize(
    ("sequence_length", "expected"),
    [
        (4, [4]),
        (16, [16]),
        (17, [16, 17]),
        (64, [16, 32, 48, 64]),
        (100, [16, 32, 48, 64, 96, 100]),
        (2048, list(BUCKET_LENGTHS)),
    ],
)
def test_bucket_lengths_end_with_the_sequence_length(sequence_length, expected):
    assert bucket_lengths(PipelineConfig(sequence_length=sequence_length)).tolist() == expected


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.sampled_from([0, 1, 14, 15, 16, 17, 30, 31, 32, 46, 47, 48, 99]), min_size=1, max_size=40),
    batch_size=st.integers(1, 12),
    sequence_length=st.sampled_from([4, 16, 33, 48]),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_row_comes_once_an_epoch_in_as_many_batches_as_announced(counts, batch_size, sequence_length, seed):
    encoded = encode([letters(count) for count in counts], batch_size=batch_size, sequence_length=sequence_length)
    lengths = [min(count + 1, sequence_length) for count in counts]
    per_bucket = Counter(next(bound for bound in (16, 32, 48, 64) if length <= bound) for length in lengths)
    training = encoded.training_batches(seed)
    for _ in range(2):
        batches = rows_of(training)
        assert len(batches) == encoded.steps == int(training.cardinality())
        assert encoded.steps == sum(math.ceil(rows / batch_size) for rows in per_bucket.values())
        assert max(map(len, batches)) <= batch_size
        assert sorted(len(row) for batch in batches for row in batch) == sorted(lengths)


@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_a_batch_is_padded_to_the_length_of_its_bucket(distinct, kind):
    batches = distinct.training_batches(seed=0) if kind == "training" else distinct.evaluation_batches()
    shapes = set()
    for token_ids, *_ in batches:
        lengths = np.count_nonzero(token_ids.numpy(), axis=1)
        bucket = token_ids.shape[1]
        assert bucket in (16, 32, 48, 64)
        assert ((lengths > bucket - 16) & (lengths <= bucket)).all()
        shapes.add(bucket)
    assert shapes == {16, 32, 48, 64}


def test_batches_have_the_types_that_models_take(distinct):
    (token_ids, label_ids), *_ = distinct.training_batches(seed=0)
    assert (token_ids.dtype, label_ids.dtype) == (tf.int32, tf.int32)
    assert (token_ids.shape.rank, label_ids.shape.rank) == (2, 1)
    (*_, positions), *_ = distinct.evaluation_batches()
    assert positions.dtype == tf.int64


def test_a_label_stays_with_its_row(distinct):
    for batches in (distinct.training_batches(seed=5), distinct.labelled_batches()):
        for token_ids, label_ids in batches:
            lengths = np.count_nonzero(token_ids.numpy(), axis=1)
            assert label_ids.numpy().tolist() == [(length - 2) % 3 for length in lengths]


def test_each_epoch_has_a_new_order(distinct):
    training = distinct.training_batches(seed=0)
    first, second, third = (rows_of(training) for _ in range(3))
    assert first != second != third != first
    # Not the batches alone change places: the rows meet others.
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_the_same_seed_gives_the_same_epochs_also_after_another_model_has_trained(distinct):
    tf.random.set_seed(7)
    first = distinct.training_batches(seed=7)
    epochs = [rows_of(first) for _ in range(3)]
    next(iter(distinct.training_batches(seed=8)))  # a model that was stopped in the middle of its first epoch
    tf.random.set_seed(7)
    tf.random.uniform([3])  # what building a model draws
    again = distinct.training_batches(seed=7)
    assert [rows_of(again) for _ in range(3)] == epochs
    assert rows_of(distinct.training_batches(seed=8)) != epochs[0]


def test_evaluation_has_the_same_batches_on_every_pass_and_positions_restore_the_order(distinct):
    batches = distinct.evaluation_batches()
    restored = np.zeros(len(distinct), int)
    for token_ids, label_ids, positions in batches:
        restored[positions.numpy()] = np.count_nonzero(token_ids.numpy(), axis=1)
        assert label_ids.numpy().tolist() == distinct.label_ids[positions.numpy()].tolist()
    assert restored.tolist() == distinct.lengths.tolist() == list(range(2, 62))
    assert rows_of(batches) == rows_of(batches) == rows_of(distinct.labelled_batches())
    assert int(batches.cardinality()) == int(distinct.labelled_batches().cardinality()) == distinct.steps


# Settings and fingerprints


@pytest.mark.parametrize(
    "changed",
    [{"sequence_length": 256}, {"truncation": "head+tail"}, {"batch_size": 32}],
    ids=lambda it: next(iter(it)),
)
def test_the_fingerprint_changes_with_what_a_model_sees(changed):
    assert pipeline_fingerprint(PipelineConfig(**changed)) != pipeline_fingerprint(PipelineConfig())


def test_the_fingerprint_does_not_change_with_the_place_of_the_cache():
    assert pipeline_fingerprint(PipelineConfig(cache_limit_mb=0)) == pipeline_fingerprint(PipelineConfig())


@pytest.mark.parametrize(
    "setting",
    [{"sequence_length": 3}, {"sequence_length": 2049}, {"batch_size": 0}, {"cache_limit_mb": -1}, {"truncation": "t"}],
    ids=lambda it: next(iter(it)),
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValidationError, match=next(iter(setting))):
        PipelineConfig(**setting)


# The splits


class Unheard:
    """Listens to what takes a while, and forgets it."""

    def doing(self, what: str) -> None: ...

    def downloaded(self, done: int, total: int | None) -> None: ...


def test_the_vocabulary_comes_from_the_training_split_alone(tmp_path):
    train = write_reviews(tmp_path / "train.csv", rows=40)
    for seed, name in enumerate(("validation", "test"), start=1):
        write_reviews(tmp_path / f"{name}.csv", rows=20, seed=seed)

    def prepared():
        files = {name: tmp_path / f"{name}.csv" for name in ("validation", "test")}
        data = {"source": str(train), "text_column": "review", "label_column": "stars", **files}
        return prepare(resolve_config("linear", {}, ["vocabulary.size=150"], data), tmp_path / "cache", Unheard())

    before = prepared()
    for name in ("validation", "test"):
        path = tmp_path / f"{name}.csv"
        path.write_text(path.read_text(encoding="utf-8").replace("The", "Zyzzyva 很好 the"), encoding="utf-8")
    after = prepared()
    assert before.fingerprints["data"] != after.fingerprints["data"]
    assert before.fingerprints["vocabulary"] == after.fingerprints["vocabulary"]
    assert before.datasets.test.unknown.sum() == 0
    assert after.datasets.test.unknown.sum() > 0
