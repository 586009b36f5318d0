"""Whether the part of long texts that a model never reads tells the label: asked of a bag of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold

from app.analysis.bag_of_words import held_out_probabilities
from app.analysis.proportions import paired_difference, share
from app.answers import IntArray
from app.errors import RequestError
from app.statistics import Interval, McNemar, mcnemar_exact

Truncation = Literal["head", "head+tail"]
HEAD_SHARE = 0.3
"""What `head+tail` keeps of the start, as a share of the sequence length; the rest it keeps of the end."""
FOLDS = 5
# Fewer cut texts, or a class with fewer rows than folds, teach a bag of words nothing that an answer could rest on.
MIN_ROWS = 100
# More would only make the interval narrower than anybody needs.
MAX_ROWS = 5000
# "Much better than chance": beyond the majority by this much, with the whole interval.
MARGIN = 0.05


@dataclass(frozen=True)
class TailSignal:
    """What a bag of words, cross-validated on `rows` cut training texts, tells of the label.

    lost: its accuracy from the part cut off alone; kept: from what the model reads; whole: from the whole text.
    majority: the share of the commonest label among those texts. gain: whole less kept, with McNemar's exact test.
    """

    rows: int
    majority: float
    lost: Interval
    kept: Interval
    whole: Interval
    gain: Interval
    mcnemar: McNemar

    @property
    def predicts(self) -> bool:
        """Whether the lost part alone tells the label much better than always answering the commonest one."""
        return self.lost.low > self.majority + MARGIN

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        parts = {"lost": self.lost, "kept": self.kept, "whole": self.whole, "gain": self.gain}
        return {
            "rows": self.rows,
            "majority": self.majority,
            **{name: part.to_dict() for name, part in parts.items()},
            "p_value": self.mcnemar.p_value,
            "predicts": self.predicts,
        }


def tail_signal(
    texts: Sequence[str],
    label_ids: npt.ArrayLike,
    num_tokens: npt.ArrayLike,
    sequence_length: int,
    truncation: Truncation = "head",
    seed: int = 0,
) -> TailSignal | None:
    """Ask a bag of words what the lost parts of training texts tell of their labels; None where too few are cut.

    num_tokens int[n]: pieces of each text before truncation, `[CLS]` not counted; an estimate will do. Classes with
    fewer cut texts than folds are left out. At most `MAX_ROWS` texts, drawn by `seed`. RequestError where the three
    do not have the same length.
    """
    labels, pieces = np.asarray(label_ids, dtype=np.int64), np.asarray(num_tokens)
    if not len(texts) == len(labels) == len(pieces):
        raise RequestError(f"{len(texts)} texts, {len(labels)} label_ids and {len(pieces)} num_tokens do not fit")
    rows = _rows(labels, pieces + 1 > sequence_length, seed)
    if len(rows) < MIN_ROWS or len(set(labels[rows])) < 2:
        return None
    parts = [cut(texts[row], int(pieces[row]), sequence_length, truncation) for row in rows]
    return _measure([texts[row] for row in rows], parts, labels[rows], seed)


def cut(text: str, num_tokens: int, sequence_length: int, truncation: Truncation = "head") -> tuple[str, str]:
    """A text of `num_tokens` pieces as what is kept of it and what is lost, at about the right character.

    The place is the share of pieces kept, in characters, moved on to the end of the word it falls into, which counts
    as kept. `[CLS]` takes one of the `sequence_length` places.
    """
    places = sequence_length - 1
    if num_tokens <= places:
        return text, ""
    if truncation == "head":
        end = _next_space(text, round(len(text) * places / num_tokens))
        return text[:end], text[end:]
    head = round(HEAD_SHARE * sequence_length) - 1
    start = _next_space(text, round(len(text) * head / num_tokens))
    end = max(start, _next_space(text, round(len(text) * (1 - (places - head) / num_tokens))))
    return f"{text[:start]} {text[end:]}", text[start:end]


def _next_space(text: str, place: int, reach: int = 20) -> int:
    """The place itself at a word's start, else the next white space; the place again where none is near (Chinese)."""
    if place and text[place - 1].isspace():
        return place
    window = text[place : place + reach]
    return next((place + step for step, character in enumerate(window) if character.isspace()), place)


def _rows(labels: IntArray, is_cut: npt.NDArray[np.bool_], seed: int) -> IntArray:
    """Cut texts of classes with enough of them, int64[rows], at most `MAX_ROWS`."""
    rows = np.flatnonzero(is_cut)
    classes, counts = np.unique(labels[rows], return_counts=True)
    rows = rows[np.isin(labels[rows], classes[counts >= FOLDS])]
    if len(rows) <= MAX_ROWS:
        return rows
    # Drawing can leave a rare class with fewer rows than folds; asked again it goes.
    drawn = np.zeros(len(labels), dtype=bool)
    drawn[np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False)] = True
    return _rows(labels, drawn, seed)


def _measure(whole: Sequence[str], parts: Sequence[tuple[str, str]], labels: IntArray, seed: int) -> TailSignal:
    kept, lost = zip(*parts, strict=True)
    right_lost, right_kept, right_whole = (_right(read, labels, seed) for read in (lost, kept, whole))
    test = mcnemar_exact(right_whole, right_kept)
    return TailSignal(
        rows=len(labels),
        majority=float(np.unique(labels, return_counts=True)[1].max() / len(labels)),
        lost=share(right_lost),
        kept=share(right_kept),
        whole=share(right_whole),
        gain=paired_difference(test.b, test.c, len(labels)),
        mcnemar=test,
    )


def _right(texts: Sequence[str], labels: IntArray, seed: int) -> npt.NDArray[np.bool_]:
    """Whether each text's label is told right by a bag of words that was trained on the other folds."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)
    said = held_out_probabilities(texts, labels, int(labels.max()) + 1, folds)
    right: npt.NDArray[np.bool_] = said.argmax(axis=1) == labels
    return right
