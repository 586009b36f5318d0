"""Vectors of pieces from the company they keep: skip-gram with negative sampling."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.pretraining_config import VectorsConfig
from app.workshop import Workshop
from data.piece_windows import EncodedTexts
from data.vectors import fill_random

CORPUS = "corpus.txt"
LONGEST_LINE = 10_000  # gensim leaves out what a line has beyond that
FIRST_RATE, LAST_RATE = 0.025, 0.0001

EpochListener = Callable[[int, float], None]
"""Called after an epoch with its number, from 1, and the seconds of training so far."""


def learn_vectors(
    texts: EncodedTexts,
    config: VectorsConfig,
    vocabulary_size: int,
    workshop: Workshop,
    *,
    seed: int,
    budget_seconds: float,
    listen: EpochListener,
) -> np.ndarray:
    """Learn a vector for each piece: float32[vocabulary, dim]; pieces that the texts do not hold get small random ones.

    Source: Mikolov et al., 2013, "Distributed representations of words and phrases and their compositionality"; the
    training is gensim's. A checkpoint is kept after every epoch. With a budget no epoch is begun for which the time
    that is left, at the pace of those before, is not enough.
    """
    from gensim.models import Word2Vec

    corpus = workshop.folder / CORPUS
    if not corpus.is_file():
        with workshop.replacing(CORPUS) as path:
            _write_corpus(texts, path)
    model, done = _latest(workshop)
    if model is None:
        model = Word2Vec(
            vector_size=config.dim,
            window=config.window,
            negative=config.negative,
            sample=config.sample,
            sg=1,
            min_count=1,
            workers=config.workers,
            seed=seed,
        )
        model.build_vocab(corpus_file=str(corpus))
    spent = float(workshop.plan.get("seconds", 0))
    while done < config.epochs and _in_budget(done, spent, budget_seconds):
        started = time.perf_counter()
        model.train(
            corpus_file=str(corpus),
            total_words=model.corpus_total_words,
            total_examples=model.corpus_count,
            epochs=1,
            start_alpha=_rate(done / config.epochs),
            end_alpha=_rate((done + 1) / config.epochs),
        )
        done += 1
        spent += time.perf_counter() - started
        _keep(model, done, workshop)
        workshop.settle(seconds=spent)
        listen(done, spent)
    return _table(model, vocabulary_size, config.dim, seed)


def _write_corpus(texts: EncodedTexts, path: Path) -> None:
    """A text a line, as ids: pieces may hold characters that gensim takes for the end of a word."""
    with path.open("w", encoding="ascii") as file:
        for start, end in zip(texts.starts[:-1], texts.starts[1:], strict=True):
            for first in range(start, end, LONGEST_LINE):
                file.write(" ".join(map(str, texts.flat[first : min(first + LONGEST_LINE, end)].tolist())) + "\n")


def _rate(done: float) -> float:
    return FIRST_RATE + (LAST_RATE - FIRST_RATE) * done


def _in_budget(done: int, spent: float, budget: float) -> bool:
    return not budget or not done or spent + spent / done <= budget


def _keep(model: Any, epoch: int, workshop: Workshop) -> None:
    name = f"vectors-{epoch:04d}.model"
    with workshop.replacing(name) as path, path.open("wb") as file:
        model.save(file)
    for other in workshop.folder.glob("vectors-*.model"):
        if other.name != name:
            other.unlink()


def _latest(workshop: Workshop) -> tuple[Any, int]:
    """The model after the last epoch that ended, and the number of epochs."""
    from gensim.models import Word2Vec

    kept = sorted(workshop.folder.glob("vectors-*.model"))
    if not kept:
        return None, 0
    return Word2Vec.load(str(kept[-1])), int(kept[-1].stem.split("-")[1])


def _table(model: Any, vocabulary_size: int, dim: int, seed: int) -> np.ndarray:
    table = np.zeros((vocabulary_size, dim), np.float32)
    ids = np.array([int(word) for word in model.wv.index_to_key])
    table[ids] = model.wv.vectors
    found = np.zeros(vocabulary_size, bool)
    found[ids] = True
    fill_random(table, found, seed)
    return table
