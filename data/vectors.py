"""Word vectors from files, and vectors of pieces composed from them."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.piece_windows import encode_texts
from data.vocabulary import CONTINUATION, SPECIAL_PIECES, Vocabulary

HEADER = re.compile(r"\d+ ([1-9]\d*)")
"""word2vec's first line: how many words, how many dimensions. A vector of a single number is no use to anybody."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words with a vector each: float32[words, dim], in the order of the file, most frequent first as is usual."""

    words: tuple[str, ...]
    vectors: Vectors

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])


@dataclass(frozen=True, eq=False)
class PieceVectors:
    """A vector for each piece, float32[vocabulary, dim], and how many pieces got theirs in which way."""

    table: Vectors
    whole: int
    composed: int
    random: int


def read_word_vectors(path: Path) -> WordVectors:
    """Read word vectors in the text format of word2vec or GloVe, or an .npy beside which a file holds the words.

    Text (.gz: packed): a word and its numbers a line, separated by blanks; word2vec's first line, the number of words
    and of dimensions, may be there. Array: float[words, dim] in NAME.npy, a word a line in NAME.npy.words.txt,
    NAME.words.txt or NAME.txt. Of a word that stands there twice the first vector counts.

    Raises:
        DataError: no such file, or a line that is not as said above.
    """
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    words, vectors = _read_array(path) if path.suffix.lower() == ".npy" else _read_text(path)
    if not words:
        raise DataError(f"{path} holds no word.")
    if not np.isfinite(vectors).all():
        word = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise DataError(f"{path}: the vector of {words[word]!r} (word {word + 1}) is not finite.")
    return WordVectors(tuple(words), vectors)


def compose(vectors: WordVectors, vocabulary: Vocabulary, seed: int = 0) -> PieceVectors:
    """Give each piece of the vocabulary a vector.

    A piece that is a word of the file has that word's. Any other piece has the mean over all words of the file that
    the tokenizer cuts into pieces with this one among them. A piece in no word has small random numbers: the standard
    deviation is that of all numbers composed, so that its norm is like theirs.
    """
    encoded = encode_texts(vectors.words, vocabulary)
    word_of_piece = np.repeat(np.arange(len(encoded)), encoded.lengths)
    # A word with a piece twice counts once, as does a piece that the tokenizer finds in a word of white space: none.
    pairs = np.unique(np.stack([encoded.flat.astype(np.int64), word_of_piece], axis=1), axis=0)
    size, special = len(vocabulary), len(SPECIAL_PIECES)
    sums = np.zeros((size, vectors.dim), np.float64)
    np.add.at(sums, pairs[:, 0], vectors.vectors[pairs[:, 1]])
    counts = np.bincount(pairs[:, 0], minlength=size)
    table = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    known: dict[str, int] = {}
    for position, word in enumerate(vectors.words):
        known.setdefault(word, position)
    whole = {
        piece_id: known[piece]
        for piece_id, piece in enumerate(vocabulary.pieces)
        if piece_id >= special and not piece.startswith(CONTINUATION) and piece in known
    }
    table[list(whole)] = vectors.vectors[list(whole.values())]
    found = counts > 0
    found[list(whole)] = True
    found[:special] = False  # [UNK] stands in words that have nothing in common
    fill_random(table, found, seed)
    return PieceVectors(table, len(whole), int(found.sum()) - len(whole), int((~found).sum()))


def fill_random(table: Vectors, found: npt.NDArray[np.bool_], seed: int) -> None:
    """Replace the rows that were not found by small random ones, of the standard deviation of those that were."""
    scale = float(table[found].std()) if found.any() else 0.05
    missing = int((~found).sum())
    table[~found] = np.random.default_rng(seed).normal(0, scale or 0.05, (missing, table.shape[1]))


def _read_array(path: Path) -> tuple[list[str], Vectors]:
    beside = [path.with_name(path.name + ".words.txt"), path.with_suffix(".words.txt"), path.with_suffix(".txt")]
    words_file = next((file for file in beside if file.is_file()), None)
    if words_file is None:
        raise DataError(f"{path}: no file with its words, one a line: {' or '.join(file.name for file in beside)}")
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not an array that NumPy can read ({error}).") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        found = f"{vectors.dtype}{list(vectors.shape)}" if isinstance(vectors, np.ndarray) else "several arrays"
        raise DataError(f"{path}: {found} where float[words, dim] is expected.")
    try:
        words = words_file.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{words_file}: not UTF-8 (byte {error.start:,}).") from error
    if len(words) != len(vectors):
        raise DataError(f"{words_file} has {len(words):,} words, and {path.name} {len(vectors):,} vectors.")
    return words, vectors.astype(np.float32)


def _read_text(path: Path) -> tuple[list[str], Vectors]:
    rows: dict[str, Vectors] = {}
    dim = 0
    for number, line in _lines(path):
        if number == 1 and (header := HEADER.fullmatch(line)):
            dim = int(header[1])
            continue
        # Split from the right where the dimension is known: GloVe has words with blanks in them.
        word, *numbers = line.rsplit(" ", dim) if dim else line.split(" ")
        dim = dim or len(numbers)
        rows.setdefault(word, _numbers(numbers, dim, f"{path}, line {number}"))
    return list(rows), np.array(list(rows.values()), np.float32)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1, without their ends."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if text := line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip(" \r\n"):
                    yield number, text
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path}, line {number}: not UTF-8 (byte 0x{byte:02x}). Allowed: vectors as text, .gz or not, or .npy."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a gzip file that can be read ({error}).") from error


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _numbers(numbers: list[str], dim: int, place: str) -> Vectors:
    allowed = f"A line is a word and its {dim or 'numbers'}{' numbers' if dim else ''}, separated by single blanks."
    if not dim or len(numbers) != dim:
        raise DataError(f"{place}: {len(numbers)} numbers{f' where {dim} are expected' if dim else ''}. {allowed}")
    for number in numbers:
        if not NUMBER.fullmatch(number):
            raise DataError(f"{place}: {number!r} is not a number. {allowed}")
    return np.array(numbers, np.float32)
