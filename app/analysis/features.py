"""What is known of a text without asking a model: the features whose values make slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.analysis.words import words
from app.answers import Answers, IntArray

LENGTH_BINS = 4
# `[UNK]` among the pieces: beyond this a good part of the text is unknown to the model.
HIGH_UNKNOWN_SHARE = 0.05
MAX_VALUES = 20
"""Values of a column that get a slice of their own, by size; the others are pooled."""
# Written full-width in Chinese and Japanese.
MARKS = (("question mark", frozenset("?\uff1f")), ("exclamation mark", frozenset("!\uff01")))
OTHER = "other values"
MISSING = "no value"
# As `words` gives them: without apostrophes. Only English; "n't" may stand apart in tokenised texts ("does n't").
NEGATIONS = frozenset(
    words(
        "no not never none nobody nothing nowhere neither nor without cannot hardly barely scarcely n't "
        "ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't "
        "shouldn't wasn't weren't won't wouldn't"
    )
)


@dataclass(frozen=True, eq=False)
class Feature:
    """One value a text: value_ids int64[n] are positions in `values`, -1 where the text has none of them."""

    name: str
    values: tuple[str, ...]
    value_ids: IntArray


def features(answers: Answers, min_rows: int) -> list[Feature]:
    """Length, cut or not, negation, `[UNK]`, question and exclamation marks, true class, and every column.

    Those that do not vary are left out, and what fewer than `min_rows` texts have: in a language other than English
    hardly a text holds one of the negation words.
    """
    found = [
        length(answers.num_tokens),
        _yes_or_no("cut", answers.truncated),
        _yes_or_no("negation", np.array([not NEGATIONS.isdisjoint(words(text)) for text in answers.texts])),
        unknown(answers.unknown_share),
        *(_yes_or_no(name, np.array([bool(marks & set(text)) for text in answers.texts])) for name, marks in MARKS),
        Feature("class", answers.label_names, answers.label_ids),
        *(column(name, values, min_rows) for name, values in answers.columns.items()),
    ]
    return [feature for feature in found if _varies(feature, min_rows)]


def length(num_tokens: IntArray, bins: int = LENGTH_BINS) -> Feature:
    """Pieces of each text, int64[n], in bins of about as many texts; fewer bins where many texts are equally long."""
    ends = np.unique(np.quantile(num_tokens, np.arange(1, bins + 1) / bins, method="inverted_cdf"))
    bin_of = np.searchsorted(ends, num_tokens)
    within = [num_tokens[bin_of == number] for number in range(len(ends))]
    return Feature("length", tuple(f"{_range(lengths.min(), lengths.max())} pieces" for lengths in within), bin_of)


def unknown(unknown_share: npt.NDArray[np.float64]) -> Feature:
    """The share of `[UNK]` among the pieces of each text, float64[n]: none, up to 5%, above."""
    names = ("none", f"up to {HIGH_UNKNOWN_SHARE:.0%}", f"above {HIGH_UNKNOWN_SHARE:.0%}")
    return Feature("[UNK]", names, np.digitize(unknown_share, [0, HIGH_UNKNOWN_SHARE], right=True))


def column(name: str, values: Sequence[Any] | npt.NDArray[Any], min_rows: int) -> Feature:
    """A column's values with at least `min_rows` texts, the largest `MAX_VALUES` of them; the rest as one value."""
    cells = [MISSING if pd.isna(cell) or cell == "" else str(cell) for cell in values]
    sizes = sorted(Counter(cells).items(), key=lambda item: (-item[1], item[0]))
    kept = [value for value, rows in sizes[:MAX_VALUES] if rows >= min_rows]
    ids = {value: number for number, value in enumerate(kept)}
    return Feature(name, (*kept, OTHER), np.array([ids.get(cell, len(kept)) for cell in cells], dtype=np.int64))


def crossed(first: Feature, second: Feature) -> Feature:
    """Both features together: a value for each pair of values."""
    names = tuple(f"{value}, {second.name}: {other}" for value in first.values for other in second.values)
    ids = first.value_ids * len(second.values) + second.value_ids
    missing = (first.value_ids < 0) | (second.value_ids < 0)
    return Feature(first.name, names, np.where(missing, -1, ids))


def _yes_or_no(name: str, mask: npt.NDArray[np.bool_]) -> Feature:
    return Feature(name, ("yes", "no"), (~mask).astype(np.int64))


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _varies(feature: Feature, min_rows: int) -> bool:
    """Whether at least two values have enough texts."""
    sizes = np.bincount(feature.value_ids[feature.value_ids >= 0], minlength=1)
    return int((sizes >= min_rows).sum()) >= 2
