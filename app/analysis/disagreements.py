"""Where classifiers disagree, the texts on which all were sure first, and the same as rows to be labelled anew."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.analysis.aligned import check_aligned
from app.answers import Answers

# What makes a spreadsheet take a cell for a formula, whether or not it is quoted, unless it is a plain number.
FORMULA = re.compile(r"^[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"^[+-]?\d+([.,]\d+)?$")


@dataclass(frozen=True)
class ModelAnswer:
    """What one model said of one text: its label and the calibrated probability of that label."""

    model: str
    label: str
    probability: float
    is_right: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "model": self.model,
            "label": self.label,
            "probability": self.probability,
            "is_right": self.is_right,
        }


@dataclass(frozen=True)
class Disagreement:
    """A text to which not all models gave the same label. row: its position in the split."""

    row: int
    text: str
    label: str
    answers: tuple[ModelAnswer, ...]

    @property
    def sureness(self) -> float:
        """The probability of the least sure model: high only where all of them were sure."""
        return min(answer.probability for answer in self.answers)

    @property
    def right(self) -> tuple[str, ...]:
        """The models whose label is the true one."""
        return tuple(answer.model for answer in self.answers if answer.is_right)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "row": self.row,
            "text": self.text,
            "label": self.label,
            "sureness": self.sureness,
            "answers": [answer.to_dict() for answer in self.answers],
        }


@dataclass(frozen=True)
class RightCount:
    """Texts that exactly these models have right; none of them for an empty tuple."""

    right: tuple[str, ...]
    count: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"right": list(self.right), "count": self.count}


@dataclass(frozen=True)
class Disagreements:
    """All texts of `total` on which the models differ, those all were sure of first.

    counts: of all texts, by who is right; for two models both, only the first, only the second, neither. Two wrong
    labels may differ, so where there are three classes or more "neither" holds disagreements too.
    """

    models: tuple[str, ...]
    total: int
    counts: tuple[RightCount, ...]
    rows: tuple[Disagreement, ...]

    def to_dict(self, limit: int | None = None) -> dict[str, Any]:
        """JSON-able; `limit` keeps the first rows only."""
        return {
            "models": list(self.models),
            "total": self.total,
            "disagreements": len(self.rows),
            "counts": [count.to_dict() for count in self.counts],
            "rows": [row.to_dict() for row in self.rows[:limit]],
        }

    def relabelling(self) -> pd.DataFrame:
        """A row a disagreement, to be written with `to_csv(index=False)` and filled in: `new_label` is empty.

        Columns row, text, label, two a model, right, new_label. Read it back by `row`: a cell that a spreadsheet
        would run as a formula (it starts with = + - @ and is no number) has an apostrophe before it, since quotes,
        which `to_csv` sets where a comma or a line break needs them, do not stop a spreadsheet.
        """
        return pd.DataFrame([_csv_row(row) for row in self.rows], columns=_csv_columns(self.models))


def disagreements(answers: Sequence[Answers]) -> Disagreements:
    """Compare two or more models' answers on the same texts. Raises `RequestError` where the texts are not the same."""
    check_aligned(answers, at_least=2)
    predicted = np.stack([one.predicted for one in answers], axis=1)
    rows = np.flatnonzero((predicted != predicted[:, :1]).any(axis=1))
    found = [_disagreement(int(row), answers, predicted[row]) for row in rows]
    found.sort(key=lambda one: (-one.sureness, one.row))
    return Disagreements(tuple(one.name for one in answers), len(answers[0]), _counts(answers), tuple(found))


def _disagreement(row: int, answers: Sequence[Answers], predicted: npt.NDArray[Any]) -> Disagreement:
    names, label_id = answers[0].label_names, answers[0].label_ids[row]
    said = tuple(
        ModelAnswer(one.name, names[said_id], float(one.probabilities[row, said_id]), bool(said_id == label_id))
        for one, said_id in zip(answers, predicted, strict=True)
    )
    return Disagreement(row, answers[0].texts[row], names[label_id], said)


def _counts(answers: Sequence[Answers]) -> tuple[RightCount, ...]:
    """All four for two models; for more only those that occur, as there are 2 to the power of the models."""
    seen = Counter(map(tuple, np.stack([one.correct for one in answers], axis=1).tolist()))
    return tuple(
        RightCount(tuple(one.name for one, is_right in zip(answers, pattern, strict=True) if is_right), seen[pattern])
        for pattern in product([True, False], repeat=len(answers))
        if len(answers) == 2 or seen[pattern]
    )


def _csv_columns(models: Sequence[str]) -> list[str]:
    of_models = [column for model in models for column in (model, f"{model} probability")]
    return ["row", "text", "label", *of_models, "right", "new_label"]


def _csv_row(found: Disagreement) -> list[Any]:
    said = [cell for answer in found.answers for cell in (inert(answer.label), round(answer.probability, 4))]
    return [found.row, inert(found.text), inert(found.label), *said, inert(", ".join(found.right)), ""]


def inert(cell: str) -> str:
    """The cell as text that a spreadsheet does not run. Source: OWASP, "CSV injection"."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.match(cell) else cell
