"""Kinds of texts on which a model does worse than elsewhere, or two models differ, found from the data itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from app.analysis.aligned import check_aligned
from app.analysis.features import crossed, features
from app.analysis.proportions import difference, lower_than, paired_difference, proportion
from app.answers import Answers
from app.power import SIGNIFICANCE
from app.statistics import Interval, McNemar, holm, mcnemar_exact

BoolArray = npt.NDArray[np.bool_]
# Below this a slice cannot show much, and each one more makes the correction stricter for all the others.
MIN_ROWS = 20


@dataclass(frozen=True, eq=False)
class Members:
    """The texts of which `feature` is `value`: rows bool[n]."""

    feature: str
    value: str
    rows: BoolArray

    @property
    def name(self) -> str:
        """As a table shows it."""
        return f"{self.feature}: {self.value}"


@dataclass(frozen=True)
class ModelOnSlice:
    """A model's accuracy on a slice and on the rest of the split, and how much lower it is on the slice.

    p_value: of Fisher's exact test that the slice is no worse than the rest, one-sided; corrected: by Holm, over all
    models and slices.
    """

    model: str
    accuracy: Interval
    rest: Interval
    gap: Interval
    p_value: float
    corrected: float

    @property
    def is_worse(self) -> bool:
        """Whether the slice is worse than the rest by more than chance explains, all slices considered."""
        return self.corrected < SIGNIFICANCE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "model": self.model,
            "accuracy": self.accuracy.to_dict(),
            "rest": self.rest.to_dict(),
            "gap": self.gap.to_dict(),
            "p_value": self.p_value,
            "corrected": self.corrected,
            "is_worse": self.is_worse,
        }


@dataclass(frozen=True)
class PairOnSlice:
    """Two models on a slice: accuracy of the first less that of the second, and McNemar's exact test.

    corrected: the test's p-value by Holm, over all pairs and slices.
    """

    first: str
    second: str
    difference: Interval
    mcnemar: McNemar
    corrected: float

    @property
    def is_different(self) -> bool:
        """Whether one of the two is better here by more than chance explains, all slices considered."""
        return self.corrected < SIGNIFICANCE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference.to_dict(),
            "mcnemar": {"b": self.mcnemar.b, "c": self.mcnemar.c, "p_value": self.mcnemar.p_value},
            "corrected": self.corrected,
            "is_different": self.is_different,
        }


@dataclass(frozen=True)
class Slice:
    """The texts of which `feature` is `value`: their number, each model, and each pair of models, in their order."""

    feature: str
    value: str
    rows: int
    models: tuple[ModelOnSlice, ...]
    pairs: tuple[PairOnSlice, ...]

    @property
    def name(self) -> str:
        """As a table shows it."""
        return f"{self.feature}: {self.value}"

    @property
    def rank(self) -> tuple[float, int, str]:
        """The one that is worst at least: the largest lower end of a model's gap first; of equals the larger slice."""
        return -max(one.gap.low for one in self.models), -self.rows, self.name

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "feature": self.feature,
            "value": self.value,
            "rows": self.rows,
            "models": [one.to_dict() for one in self.models],
            "pairs": [one.to_dict() for one in self.pairs],
        }


def find_slices(answers: Sequence[Answers], *, min_rows: int = MIN_ROWS, depth: int = 1) -> tuple[Slice, ...]:
    """Every slice with at least `min_rows` texts, and as many outside it, those worse than their rest first.

    Ranked by the lower end of the gap's interval, the largest over models: how much worse the slice is at least. By
    the gap itself a few unlucky texts would come first; by the p-value a large slice that is hardly worse. `depth` 2
    adds the slices of every two features together (long texts with a negation); they enter the correction too. Texts,
    pieces and columns are those of the first model. Raises `RequestError` where the models did not answer the same
    texts.
    """
    check_aligned(answers)
    members = slice_members(answers[0], min_rows, depth)
    masks = [one.rows for one in members]
    slices = [
        Slice(one.feature, one.value, int(one.rows.sum()), of_models, of_pairs)
        for one, of_models, of_pairs in zip(members, _models_on(masks, answers), _pairs_on(masks, answers), strict=True)
    ]
    return tuple(sorted(slices, key=lambda one: one.rank))


def slice_members(answers: Answers, min_rows: int, depth: int = 1) -> list[Members]:
    """Every slice with at least `min_rows` texts, and as many outside it; `depth` as in `find_slices`."""
    found = features(answers, min_rows)
    if depth > 1:
        found = [*found, *(crossed(first, second) for first, second in combinations(found, 2))]
    members = [
        Members(feature.name, value, feature.value_ids == number)
        for feature in found
        for number, value in enumerate(feature.values)
    ]
    return [one for one in members if min_rows <= one.rows.sum() <= len(one.rows) - min_rows]


def _models_on(masks: Sequence[BoolArray], answers: Sequence[Answers]) -> list[tuple[ModelOnSlice, ...]]:
    tested = []
    for mask in masks:
        rows, others = int(mask.sum()), int((~mask).sum())
        for one in answers:
            hits, other_hits = int(one.correct[mask].sum()), int(one.correct[~mask].sum())
            inside, outside = proportion(hits, rows), proportion(other_hits, others)
            p_value = lower_than(hits, rows, other_hits, others)
            tested.append((one.name, inside, outside, difference(outside, inside), p_value))
    corrected = holm([row[-1] for row in tested])
    rows_of = [ModelOnSlice(*row, p_value) for row, p_value in zip(tested, corrected, strict=True)]
    return _grouped(rows_of, len(masks))


def _pairs_on(masks: Sequence[BoolArray], answers: Sequence[Answers]) -> list[tuple[PairOnSlice, ...]]:
    tested = []
    for mask in masks:
        for first, second in combinations(answers, 2):
            test = mcnemar_exact(first.correct[mask], second.correct[mask])
            lead = paired_difference(test.b, test.c, int(mask.sum()))
            tested.append((first.name, second.name, lead, test))
    corrected = holm([row[-1].p_value for row in tested])
    rows_of = [PairOnSlice(*row, p_value) for row, p_value in zip(tested, corrected, strict=True)]
    return _grouped(rows_of, len(masks))


def _grouped(rows: list[Any], slices: int) -> list[tuple[Any, ...]]:
    """The rows of all slices, equally many a slice, as one tuple a slice."""
    each = len(rows) // max(1, slices)
    return [tuple(rows[number * each : (number + 1) * each]) for number in range(slices)]
