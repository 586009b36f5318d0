"""Pairs of texts that are nearly the same: found by MinHash, not by comparing every pair, and confirmed by letters."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH
from rapidfuzz import fuzz

from app.analysis.words import words

# 32 bands of 3 hashes: two texts that share half of their word pairs become candidates with probability 0.986,
# two thirds of them 0.99999, and a fiftieth, as long unrelated texts do, 0.0003.
BANDS, BAND_HASHES = 32, 3
NUM_HASHES = BANDS * BAND_HASHES
MAX_SHINGLES = 2000
"""Word pairs of a text that are hashed, its first ones: the copy of a book would say nothing more."""
MAX_CANDIDATES = 50
"""Candidates of one text that are looked at, those with the most hashes in common: form letters have thousands."""
MIN_SIMILARITY = 0.8
MIN_WORDS_SHARED = 0.6
# Odd and large: spreads the hash of a pair's first word before the second is added.
MIX = np.uint32(2654435761)


@dataclass(frozen=True)
class Pair:
    """Position of a text among the first texts, that of its near-duplicate among the others, and their similarity."""

    row: int
    other_row: int
    similarity: float


def near_duplicates(texts: Sequence[str], others: Sequence[str]) -> list[Pair]:
    """Pairs of a text and one of the others that are the same but for a few words, case, punctuation or a short prefix.

    Texts are compared as words (see `words`). Candidates share about half of their word pairs, by MinHash. A candidate
    is confirmed when both hold:

    - the letters agree to `MIN_SIMILARITY` or more: rapidfuzz's ratio, 1 less the insertions and deletions that
      turn one into the other, over the letters of both;
    - the words agree to `MIN_WORDS_SHARED` or more: those in both over those in either, each weighted by its rarity
      (inverse document frequency), so that "the capital of Peru" is no twin of "the capital of Chad".

    A quotation within a much longer text is not found. Sources: Broder, 1997, "On the resemblance and containment of
    documents"; Leskovec, Rajaraman & Ullman, 2014, "Mining of massive datasets", chapter 3, for the bands.
    """
    # As one string a text: millions of words apart would take ten times the memory.
    first, second = ([" ".join(words(text)) for text in side] for side in (texts, others))
    rarity = _rarity([*first, *second])
    found = []
    for row, other_row in _candidates(first, second):
        ratio = fuzz.ratio(first[row], second[other_row], score_cutoff=100 * MIN_SIMILARITY) / 100
        if ratio and _words_shared(first[row], second[other_row], rarity) >= MIN_WORDS_SHARED:
            found.append(Pair(row, other_row, ratio))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.row, pair.other_row))


def _candidates(texts: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose word pairs hash alike; the smaller side is indexed, since the index takes memory."""
    swapped = len(texts) > len(others)
    indexed, asked = (others, texts) if swapped else (texts, others)
    index = MinHashLSH(num_perm=NUM_HASHES, params=(BANDS, BAND_HASHES))
    signatures = {}
    for row, signature in _signatures(indexed):
        index.insert(row, signature, check_duplication=False)
        signatures[row] = signature.hashvalues
    for row, signature in _signatures(asked):
        near = index.query(signature)
        if len(near) > MAX_CANDIDATES:
            near.sort(key=lambda other: (-np.count_nonzero(signatures[other] == signature.hashvalues), other))
        for other in near[:MAX_CANDIDATES]:
            yield (row, other) if swapped else (other, row)


def _signatures(texts: Sequence[str]) -> Iterator[tuple[int, MinHash]]:
    """Position and MinHash of each text that has a word."""
    rows = [row for row, text in enumerate(texts) if text]
    shingles = (_shingles(texts[row].split()) for row in rows)
    made = MinHash.generator(shingles, num_perm=NUM_HASHES, hashfunc=lambda shingle: shingle)
    yield from zip(rows, made, strict=True)


def _shingles(words_of_text: list[str]) -> list[int]:
    """Hashes of the pairs of neighbouring words; of the word itself where there is only one."""
    hashes = np.array([zlib.crc32(word.encode()) for word in words_of_text[: MAX_SHINGLES + 1]], dtype=np.uint32)
    pairs: npt.NDArray[np.uint32] = hashes if len(hashes) == 1 else hashes[:-1] * MIX + hashes[1:]
    return np.unique(pairs).tolist()


def _rarity(texts: Sequence[str]) -> dict[str, float]:
    """Inverse document frequency of each word, above 0: log((1 + texts) / (1 + texts with it)) + 1."""
    frequency = Counter(word for text in texts for word in set(text.split()))
    return {word: float(np.log((1 + len(texts)) / (1 + count))) + 1 for word, count in frequency.items()}


def _words_shared(text: str, other: str, rarity: dict[str, float]) -> float:
    """Weight of the words in both over that of the words in either, 0 to 1."""
    first, second = set(text.split()), set(other.split())
    weight = rarity.__getitem__
    return sum(map(weight, first & second)) / sum(map(weight, first | second))
