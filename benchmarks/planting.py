"""Faults to plant into a real data set, and a classifier of words to give answers on it: for planted_faults.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import make_pipeline

from app.analysis.bag_of_words import word_classifier, word_weights
from app.answers import Answers
from data.splits import Split, Splits

Array = npt.NDArray[Any]
PIECES = re.compile(r"\w+|[^\w\s]")
PREFIXES = ("Review: ", "RT @user: ", "Fwd: ", "Quote of the day: ", "(1) ")
# Shorter ones are not copied: a prefix of two words would make up a third of the copy.
SHORTEST_COPIED = 6


@dataclass(frozen=True)
class Corpus:
    """The texts and label ids of training and test."""

    name: str
    label_names: tuple[str, ...]
    train: tuple[str, ...]
    train_ids: Array
    test: tuple[str, ...]
    test_ids: Array

    @classmethod
    def of(cls, splits: Splits, max_rows: int) -> Corpus:
        """At most `max_rows` of each split, drawn by seed 0."""
        train, test = (_some(split, max_rows) for split in (splits.train, splits.test))
        return cls(splits.name, splits.label_names, *train, *test)

    def with_test(self, texts: Sequence[str], ids: Array) -> Corpus:
        return replace(self, test=tuple(texts), test_ids=ids)


def _some(split: Split, max_rows: int) -> tuple[tuple[str, ...], Array]:
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:max_rows])
    return tuple(split.texts[row] for row in rows), split.label_ids[rows].astype(np.int64)


def pieces(text: str) -> list[str]:
    """Words and punctuation marks: what stands for a tokenizer's pieces here."""
    return PIECES.findall(text)


def answer(name: str, corpus: Corpus, *, read: Callable[[str], str] = str, sequence_length: int = 1024) -> Answers:
    """The answers of a bag of words on the test split, trained on training; both as `read` leaves them."""
    model = make_pipeline(word_weights(), word_classifier()).fit(
        [read(text) for text in corpus.train], corpus.train_ids
    )
    probabilities = np.full((len(corpus.test), len(corpus.label_names)), 1e-6)
    probabilities[:, model.classes_] += model.predict_proba([read(text) for text in corpus.test])
    known = {piece.casefold() for text in corpus.train for piece in pieces(text)}
    unknown = [np.mean([piece.casefold() not in known for piece in pieces(text)] or [0]) for text in corpus.test]
    return Answers(
        name=name,
        label_names=corpus.label_names,
        texts=corpus.test,
        label_ids=corpus.test_ids,
        logits=np.log(probabilities),
        temperature=1.0,
        num_tokens=np.array([len(pieces(text)) for text in corpus.test]),
        unknown_share=np.array(unknown),
        sequence_length=sequence_length,
    )


def plant_copies(corpus: Corpus, share: float, seed: int) -> tuple[Corpus, Array]:
    """Put edited copies of training texts in the place of that share of the test texts; which rows, bool[n]."""
    chance = np.random.default_rng(seed)
    copied = [row for row, text in enumerate(corpus.train) if len(text.split()) >= SHORTEST_COPIED]
    rows = chance.permutation(len(corpus.test))[: round(share * len(corpus.test))]
    texts, ids = list(corpus.test), corpus.test_ids.copy()
    for row, source in zip(rows, chance.choice(copied, len(rows), replace=False), strict=True):
        texts[row], ids[row] = edited(corpus.train[source], chance), corpus.train_ids[source]
    planted = np.zeros(len(texts), dtype=bool)
    planted[rows] = True
    return corpus.with_test(texts, ids), planted


def edited(text: str, chance: np.random.Generator) -> str:
    """The text with one to three of: case, punctuation, a prefix, one word in ten changed, one word left out."""
    edits = [_case, _punctuation, _prefix, _words_changed, _word_left_out]
    for edit in chance.choice(np.array(edits, dtype=object), chance.integers(1, 4), replace=False):
        text = edit(text, chance)
    return text


def _case(text: str, chance: np.random.Generator) -> str:
    return [text.upper(), text.lower(), text.title()][chance.integers(3)]


def _punctuation(text: str, chance: np.random.Generator) -> str:
    return re.sub(r"[.,;:!?\"()\-]", "", text) if chance.random() < 0.5 else text.replace(" ", "  ").rstrip(".") + " !!"


def _prefix(text: str, chance: np.random.Generator) -> str:
    return chance.choice(PREFIXES) + text


def _words_changed(text: str, chance: np.random.Generator) -> str:
    words = text.split()
    for place in chance.permutation(len(words))[: max(1, len(words) // 10)]:
        words[place] = "".join(chance.choice(list("abcdefghiklmnoprstuvw"), max(2, len(words[place]))))
    return " ".join(words)


def _word_left_out(text: str, chance: np.random.Generator) -> str:
    words = text.split()
    del words[chance.integers(len(words))]
    return " ".join(words)


def flip_labels(label_ids: Array, classes: int, share: float, seed: int) -> tuple[Array, Array]:
    """Give that share of the labels another class, each as likely; the labels, and which are wrong, bool[n]."""
    chance = np.random.default_rng(seed)
    wrong = np.zeros(len(label_ids), dtype=bool)
    wrong[chance.permutation(len(label_ids))[: round(share * len(label_ids))]] = True
    others = (label_ids + chance.integers(1, classes, len(label_ids))) % classes
    return np.where(wrong, others, label_ids), wrong


def spoil(answers: Answers, mask: Array, share: float, seed: int) -> Answers:
    """The same answers, but wrong on that share of the texts in bool[n] `mask`: the likeliest wrong label wins."""
    chance = np.random.default_rng(seed)
    logits = answers.logits.copy()
    rows = np.flatnonzero(mask & answers.correct & (chance.random(len(mask)) < share))
    wrong = logits[rows].copy()
    wrong[np.arange(len(rows)), answers.label_ids[rows]] = -np.inf
    other = wrong.argmax(axis=1)
    true = answers.label_ids[rows]
    logits[rows, other], logits[rows, true] = logits[rows, true], logits[rows, other]
    return replace(answers, logits=logits)


def lengthen(corpus: Corpus, filler: int, *, signal_last: bool, seed: int) -> Corpus:
    """Every second text with `filler` words that say nothing, before the text itself (`signal_last`) or behind it."""
    chance = np.random.default_rng(seed)
    vocabulary, counts = np.unique([word for text in corpus.train for word in text.split()], return_counts=True)

    def long(text: str) -> str:
        words = " ".join(chance.choice(vocabulary, filler, p=counts / counts.sum()))
        return f"{words} {text}" if signal_last else f"{text} {words}"

    train, test = (
        tuple(long(text) if row % 2 else text for row, text in enumerate(texts))
        for texts in (corpus.train, corpus.test)
    )
    return replace(corpus, train=train, test=test)
