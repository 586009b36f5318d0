"""The one road from text to batches of token ids. Every model trains, is evaluated and serves through it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from pydantic import BaseModel, Field, model_validator

from data.splits import Split, Splits
from data.vocabulary import CLS_ID, PAD_ID, UNK, UNK_ID, Vocabulary

BUCKET_WINDOWS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # bucket lengths in windows, for `long` = window
BUCKET_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
SHUFFLE_ROWS = 100_000  # rows in memory to draw the next one from; all of them, for most data sets
TOKENIZE_BATCH = 256  # texts tokenised by one op call: large enough to hide its cost, small enough for memory


class PipelineConfig(BaseModel, frozen=True, extra="forbid"):
    """How texts become batches."""

    sequence_length: int = Field(1024, ge=4, le=2048)
    """Most pieces that a network reads at once, `[CLS]` included."""
    long: Literal["truncate", "window"] = "truncate"
    """A text of more pieces than that is cut as `truncation` says, or read whole, in windows of that length."""
    window_overlap: float = Field(0.25, ge=0, le=0.9)
    """Share of a window's pieces that the window before it held too."""
    longest_text: int = Field(65_536, ge=4, le=2**20)
    """What is cut even if windows are read: bounds the memory and the time that one text can take."""
    truncation: Literal["head", "head+tail"] = "head"
    batch_size: int = Field(64, ge=1)
    cache_limit_mb: int = Field(1024, ge=0)
    """Token ids beyond this size (MB) are cached on disk instead of in memory."""

    @model_validator(mode="after")
    def _let_a_window_fit(self) -> PipelineConfig:
        if self.long == "window" and self.longest_text < self.sequence_length:
            least = f"at least sequence_length ({self.sequence_length})"
            raise ValueError(f"longest_text must be {least}, and {self.longest_text} is less")
        return self

    @property
    def longest_row(self) -> int:
        """Most pieces of a text that are read at all, `[CLS]` included."""
        return self.sequence_length if self.long == "truncate" else self.longest_text

    @property
    def window_stride(self) -> int:
        """Pieces from the start of one window to that of the next."""
        places = self.sequence_length - 1  # [CLS] takes one in each window
        return max(1, places - round(self.window_overlap * places))


class Tokenizer:
    """Text to token ids, in graph operations only, so that training and serving cannot disagree."""

    def __init__(self, vocabulary: Vocabulary, config: PipelineConfig) -> None:
        self.config = config
        self._bert = tf_text.FastBertTokenizer(
            vocab=list(vocabulary.pieces),
            token_out_type=tf.int32,
            unknown_token=UNK,
            lower_case_nfd_strip_accents=True,
        )

    def pieces(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Encode whole texts, nothing cut off.

        Args:
            texts: string[batch], UTF-8.

        Returns:
            Ragged int32[batch, (pieces)], each row starting with `[CLS]`: no row is empty.
        """
        token_ids = self._bert.tokenize(texts)
        first = tf.fill([token_ids.nrows(), 1], tf.constant(CLS_ID, tf.int32))
        return tf.concat([first, token_ids], axis=1)

    def truncate(self, token_ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Cut rows to `longest_row` pieces.

        `head` keeps the first pieces. `head+tail` keeps the first 30% and the last 70%: reviews carry their
        verdict at the end (Sun et al., 2019, "How to fine-tune BERT for text classification?").
        """
        limit = self.config.longest_row
        if self.config.truncation == "head":
            return token_ids[:, :limit]
        head = round(0.3 * limit)
        lengths = token_ids.row_lengths()
        starts = tf.maximum(lengths - (limit - head), tf.minimum(lengths, head))
        positions = tf.ragged.range(lengths)
        keep = (positions < head) | (positions >= tf.expand_dims(starts, 1))
        return tf.ragged.boolean_mask(token_ids, keep)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Encode for a model: string[batch] -> int32[batch, time], right-padded with 0 to the longest row."""
        return self.truncate(self.pieces(texts)).to_tensor(default_value=PAD_ID)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # traced once for all splits
    def counted(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]:
        """Encode string[batch]: rows cut to `longest_row`; int64[batch] of their pieces before that, and of `[UNK]`."""
        pieces = self.pieces(texts)
        unknown = tf.reduce_sum(tf.cast(pieces == UNK_ID, tf.int64), axis=1)
        return self.truncate(pieces), pieces.row_lengths(), unknown


@dataclass(frozen=True)
class Encoded:
    """One split as token ids, cached, with what is needed to batch it.

    `rows` yields (token_ids int32[time], label_id int32[], position int64[]) in the order of the split;
    `lengths` int64[n] are pieces before truncation, `[CLS]` included; `unknown` int64[n] those that are `[UNK]`.
    """

    rows: tf.data.Dataset
    label_ids: np.ndarray
    lengths: np.ndarray
    unknown: np.ndarray
    config: PipelineConfig

    def __len__(self) -> int:
        return len(self.label_ids)

    @property
    def _bucket_of_row(self) -> np.ndarray:
        return np.searchsorted(bucket_lengths(self.config), np.minimum(self.lengths, self.config.longest_row))

    @property
    def steps(self) -> int:
        """Batches in one pass: buckets do not mix, so each may end with a smaller batch."""
        sizes = bucket_batch_sizes(self.config)
        rows_in_bucket = np.bincount(self._bucket_of_row, minlength=len(sizes))
        return int(np.ceil(rows_in_bucket / sizes).sum())

    def training_batches(self, seed: int) -> tf.data.Dataset:
        """Batches (token_ids int32[batch, time], label_ids int32[batch]) in a new seeded order each epoch.

        Rows of like length share a batch, padded to the bucket's length: few shapes, little padding.
        """
        shuffled = self.rows.shuffle(min(len(self), SHUFFLE_ROWS), seed=seed, reshuffle_each_iteration=True)
        return self._bucketed(shuffled).map(_without_position).prefetch(tf.data.AUTOTUNE)

    def labelled_batches(self) -> tf.data.Dataset:
        """Batches (token_ids, label_ids), the same on every pass."""
        return self.evaluation_batches().map(_without_position)

    def evaluation_batches(self) -> tf.data.Dataset:
        """Batches (token_ids, label_ids, position int64[batch] in the split), the same on every pass."""
        return self._bucketed(self.rows).prefetch(tf.data.AUTOTUNE)

    def _bucketed(self, rows: tf.data.Dataset) -> tf.data.Dataset:
        lengths, sizes = bucket_lengths(self.config).tolist(), bucket_batch_sizes(self.config).tolist()
        batches = rows.bucket_by_sequence_length(
            element_length_func=lambda ids, *_: tf.shape(ids)[0],
            bucket_boundaries=[length + 1 for length in lengths],
            # The last bucket, beyond the longest row, stays empty; tf.data asks for it all the same.
            bucket_batch_sizes=[*sizes, 1],
            padded_shapes=([None], [], []),
            pad_to_bucket_boundary=True,
        )
        # Keras asks for the number of batches, and tf.data cannot know it once rows are grouped.
        return batches.apply(tf.data.experimental.assert_cardinality(self.steps))


@dataclass(frozen=True)
class Datasets:
    """The three splits, encoded by one tokenizer."""

    train: Encoded
    validation: Encoded
    test: Encoded
    tokenizer: Tokenizer

    def items(self) -> Iterator[tuple[str, Encoded]]:
        """Yield (split name, encoded split)."""
        yield from (("train", self.train), ("validation", self.validation), ("test", self.test))


def make_datasets(splits: Splits, vocabulary: Vocabulary, config: PipelineConfig, cache: Path) -> Datasets:
    """Tokenise each split once. Large splits are cached in files below `cache`, one new folder a call."""
    tokenizer = Tokenizer(vocabulary, config)

    def encode(split: Split) -> Encoded:
        return encode_split(split, tokenizer, cache)

    return Datasets(encode(splits.train), encode(splits.validation), encode(splits.test), tokenizer)


def encode_split(split: Split, tokenizer: Tokenizer, cache: Path) -> Encoded:
    """Tokenise one split and count its pieces, in one pass."""
    config = tokenizer.config
    texts = tf.data.Dataset.from_tensor_slices(np.array(split.texts, dtype=object)).batch(TOKENIZE_BATCH)
    tokenized = (
        texts.map(tokenizer.counted, num_parallel_calls=tf.data.AUTOTUNE)
        .unbatch()
        .cache(_cache_name(split, config, cache))
    )
    # In batches, for which Python is asked less often than for rows. Reading all of it fills the cache.
    counted = list(tokenized.map(lambda _, *counts: counts).batch(TOKENIZE_BATCH).as_numpy_iterator())
    lengths, unknown = np.concatenate([np.zeros((2, 0), np.int64), *map(np.stack, counted)], axis=1)
    labels = tf.data.Dataset.from_tensor_slices(split.label_ids.astype(np.int32))
    rows = tf.data.Dataset.zip(tokenized.map(lambda ids, *_: ids), labels, tf.data.Dataset.range(len(split.texts)))
    return Encoded(rows, split.label_ids, lengths, unknown, config)


def _without_position(token_ids: tf.Tensor, label_ids: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return token_ids, label_ids


def _cache_name(split: Split, config: PipelineConfig, cache: Path) -> str:
    """The empty name keeps the cache in memory; tf.data takes any other for files."""
    # An id takes four bytes, and no text has more pieces than characters.
    if 4 * sum(map(len, split.texts)) <= config.cache_limit_mb * 1_000_000:
        return ""
    cache.mkdir(parents=True, exist_ok=True)
    return str(Path(tempfile.mkdtemp(prefix="token-ids-", dir=cache)) / "rows")


def bucket_lengths(config: PipelineConfig) -> np.ndarray:
    """Lengths that batches are padded to, int64[buckets], the last one being `longest_row`."""
    lengths = [length for length in BUCKET_LENGTHS if length < config.sequence_length]
    if config.long == "window":
        several = (config.sequence_length + (windows - 1) * config.window_stride for windows in BUCKET_WINDOWS)
        lengths += [length for length in (config.sequence_length, *several) if length < config.longest_row]
    return np.array([*lengths, config.longest_row])


def bucket_batch_sizes(config: PipelineConfig) -> np.ndarray:
    """Rows of a batch in each bucket, int64[buckets]: so many that it has at most `batch_size` windows, or one row."""
    beyond = np.maximum(bucket_lengths(config) - config.sequence_length, 0)
    windows = 1 + -(-beyond // config.window_stride)
    return np.maximum(config.batch_size // windows, 1)


def pipeline_fingerprint(config: PipelineConfig) -> str:
    """SHA-256 (hex) of everything here that changes what a model sees, batch order aside."""
    # What windows alone use says nothing of a run without them.
    unused = {"long", "window_overlap", "longest_text"} if config.long == "truncate" else set()
    buckets = f"{BUCKET_LENGTHS}" if config.long == "truncate" else f"{BUCKET_LENGTHS} {BUCKET_WINDOWS}"
    settings = config.model_dump_json(exclude={"cache_limit_mb", *unused})
    return hashlib.sha256(f"{settings} {buckets} wordpiece-v1".encode()).hexdigest()
