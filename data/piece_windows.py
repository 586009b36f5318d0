"""Long texts as windows of pieces, in batches whose order depends on the seed alone, to pretrain an encoder on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from data.pipeline import BUCKET_LENGTHS, TOKENIZE_BATCH, PipelineConfig, Tokenizer
from data.vocabulary import CLS_ID, PAD_ID, Vocabulary

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Texts as pieces, one after the other, without `[CLS]`: text i is `flat[starts[i] : starts[i + 1]]`."""

    flat: Ids  # int32[pieces]
    starts: npt.NDArray[np.int64]  # int64[texts + 1]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Pieces of each text, int64[texts]."""
        return np.diff(self.starts)

    def counts(self, vocabulary_size: int) -> npt.NDArray[np.int64]:
        """How often each piece stands in the texts, int64[vocabulary]."""
        return np.bincount(self.flat, minlength=vocabulary_size)

    def save(self, path: Path) -> None:
        """Write an .npz, whole or not at all."""
        aside = path.with_name(path.name + ".part")
        with aside.open("wb") as file:
            np.savez(file, flat=self.flat, starts=self.starts)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> EncodedTexts:
        """Read what `save` wrote."""
        with np.load(path) as file:
            return cls(file["flat"], file["starts"])


def encode_texts(texts: Sequence[str], vocabulary: Vocabulary) -> EncodedTexts:
    """Cut texts into pieces with the tokenizer that every model has in its graph; nothing is cut off."""
    tokenizer = Tokenizer(vocabulary, PipelineConfig())
    parts: list[Ids] = []
    lengths: list[npt.NDArray[np.int64]] = []
    for first in range(0, len(texts), TOKENIZE_BATCH):
        pieces = tokenizer.pieces(tf.constant(texts[first : first + TOKENIZE_BATCH]))[:, 1:]
        parts.append(pieces.flat_values.numpy())
        lengths.append(pieces.row_lengths().numpy())
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return EncodedTexts(np.concatenate(parts), starts)


@dataclass(frozen=True, eq=False)
class Windows:
    """Texts cut into windows of up to `longest` pieces, `[CLS]` first in each; those of a text are of like length."""

    flat: Ids
    first: npt.NDArray[np.int64]  # int64[windows]: where each starts in flat
    count: npt.NDArray[np.int64]  # int64[windows]: its pieces, [CLS] left out
    longest: int

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def cut(cls, texts: EncodedTexts, longest: int, chosen: npt.NDArray[np.int64]) -> Windows:
        """Cut the chosen texts (positions, int64[n]); a text without pieces gives no window."""
        first: list[int] = []
        count: list[int] = []
        for text in chosen:
            start, end = int(texts.starts[text]), int(texts.starts[text + 1])
            parts = -(-(end - start) // (longest - 1))
            edges = start + (end - start) * np.arange(parts + 1) // max(parts, 1)
            first += edges[:-1].tolist()
            count += np.diff(edges).tolist()
        return cls(texts.flat, np.array(first, np.int64), np.array(count, np.int64), longest)

    def batches(self, batch_size: int, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Return the rows of each batch of an epoch, int64[rows]: a new order each epoch, the same for the same seed.

        Windows of like length share a batch. Only the last batch of a length may be smaller.
        """
        chance = np.random.default_rng([seed, epoch])
        shuffled = chance.permutation(len(self))
        bucket = np.searchsorted(self._lengths, self.count[shuffled] + 1)
        batches = [
            of_bucket[start : start + batch_size]
            for of_bucket in (shuffled[bucket == number] for number in range(len(self._lengths)))
            for start in range(0, len(of_bucket), batch_size)
        ]
        return [batches[number] for number in chance.permutation(len(batches))]

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch."""
        bucket = np.searchsorted(self._lengths, self.count + 1)
        return int(sum(-(-size // batch_size) for size in np.bincount(bucket)))

    def token_ids(self, rows: npt.NDArray[np.int64]) -> Ids:
        """Return windows as a model reads them: int32[rows, time], `[CLS]` first, padded with 0 to a bucket length."""
        count = self.count[rows]
        time = int(self._lengths[np.searchsorted(self._lengths, count.max() + 1)])
        offset = np.arange(time - 1)
        inside = offset < count[:, None]
        places = np.where(inside, self.first[rows][:, None] + offset, 0)
        token_ids = np.full((len(rows), time), PAD_ID, np.int32)
        token_ids[:, 0] = CLS_ID
        token_ids[:, 1:] = np.where(inside, self.flat[places], PAD_ID)
        return token_ids

    @property
    def _lengths(self) -> npt.NDArray[np.int64]:
        return np.array([*(length for length in BUCKET_LENGTHS if length < self.longest), self.longest])
