"""Near-duplicates across splits, and what a model scores without the texts that have a twin in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from app.analysis.near_duplicates import Pair, near_duplicates
from app.analysis.proportions import proportion, share
from app.answers import Answers
from app.errors import RequestError
from app.statistics import Interval


@dataclass(frozen=True)
class Twin:
    """Two texts of different splits that are nearly the same; similarity: 0 to 1, of their letters."""

    split: str
    row: int
    text: str
    other_split: str
    other_row: int
    other_text: str
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(vars(self))


@dataclass(frozen=True)
class Leaked:
    """How many of a split's `rows` texts have a twin in another split, and the share of them."""

    split: str
    other_split: str
    rows: int
    with_twin: int
    share: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(vars(self)) | {"share": self.share.to_dict()}


@dataclass(frozen=True)
class Score:
    """A model's accuracy on all texts of a split, on those without a twin elsewhere, and on those with one."""

    model: str
    every: Interval
    without_twins: Interval
    twins: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; None where there are no such texts."""
        return {
            "model": self.model,
            "all": self.every.to_dict(),
            "without_twins": self.without_twins.to_dict(),
            "twins": self.twins.to_dict(),
        }


@dataclass(frozen=True)
class Leaks:
    """The twins, most alike first; the share of each split that has one in each other split; scores without them."""

    twins: tuple[Twin, ...]
    leaked: tuple[Leaked, ...]
    scores: tuple[Score, ...]

    def to_dict(self, limit: int | None = None) -> dict[str, Any]:
        """JSON-able; `limit` keeps the first twins only."""
        return {
            "pairs": len(self.twins),
            "leaked": [one.to_dict() for one in self.leaked],
            "scores": [one.to_dict() for one in self.scores],
            "twins": [twin.to_dict() for twin in self.twins[:limit]],
        }


def find_leaks(splits: Mapping[str, Sequence[str]], answers: Sequence[Answers] = (), answered: str = "test") -> Leaks:
    """Twins between every two splits, given as name -> texts, and what they do to the models' accuracy.

    answers: of models on the split called `answered`, whose texts with a twin in any other split are taken out.
    RequestError where the answers are not of that split. See `app.analysis.near_duplicates` for what is a twin.
    """
    _check_answered(splits, answers, answered)
    twins: list[Twin] = []
    leaked: list[Leaked] = []
    # Of train, validation, test the later one is the one that leaks: it is measured on.
    for other, split in combinations(splits, 2):
        found = near_duplicates(splits[split], splits[other])
        twins += [_twin(split, other, pair, splits) for pair in found]
        rows, with_twin = len(splits[split]), len({pair.row for pair in found})
        leaked.append(Leaked(split, other, rows, with_twin, proportion(with_twin, rows)))
    twins.sort(key=lambda twin: -twin.similarity)
    has_twin = _rows_with_twin(twins, answered, len(splits.get(answered, ())))
    return Leaks(tuple(twins), tuple(leaked), tuple(_score(one, has_twin) for one in answers))


def _twin(split: str, other: str, pair: Pair, splits: Mapping[str, Sequence[str]]) -> Twin:
    return Twin(
        split=split,
        row=pair.row,
        text=splits[split][pair.row],
        other_split=other,
        other_row=pair.other_row,
        other_text=splits[other][pair.other_row],
        similarity=pair.similarity,
    )


def _score(answers: Answers, has_twin: npt.NDArray[np.bool_]) -> Score:
    correct = answers.correct
    return Score(answers.name, share(correct), share(correct[~has_twin]), share(correct[has_twin]))


def _rows_with_twin(twins: Sequence[Twin], split: str, rows: int) -> npt.NDArray[np.bool_]:
    """Whether each text of a split has a twin in another one, bool[rows]."""
    found = np.zeros(rows, dtype=bool)
    found[[twin.row for twin in twins if twin.split == split]] = True
    found[[twin.other_row for twin in twins if twin.other_split == split]] = True
    return found


def _check_answered(splits: Mapping[str, Sequence[str]], answers: Sequence[Answers], answered: str) -> None:
    if len(splits) < 2:
        raise RequestError(f"leaks are looked for between splits; given: {', '.join(splits) or 'none'}")
    if answers and answered not in splits:
        raise RequestError(f"the answers are of the split {answered!r}; the splits are {', '.join(splits)}")
    for one in answers:
        if tuple(one.texts) != tuple(splits[answered]):
            raise RequestError(f"{one.name} did not answer the texts of the split {answered!r}")
