"""Several classifiers' answers can be compared text by text only when they are of the same texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.answers import Answers
from app.errors import RequestError


def check_aligned(answers: Sequence[Answers], at_least: int = 1) -> None:
    """RequestError unless there are enough of them, of one split, with the same labels and names of their own."""
    names = [one.name for one in answers]
    if len(answers) < at_least:
        raise RequestError(f"{len(answers)} models ({', '.join(names) or 'none'}): at least {at_least} are needed")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise RequestError(f"{doubled[0]} stands {names.count(doubled[0])} times among {', '.join(names)}")
    for one in answers[1:]:
        _check_like(one, answers[0])


def _check_like(one: Answers, reference: Answers) -> None:
    both = f"{one.name} and {reference.name}"
    if one.label_names != reference.label_names:
        raise RequestError(
            f"{one.name} has the labels {', '.join(one.label_names)}, "
            f"{reference.name} has {', '.join(reference.label_names)}"
        )
    if len(one) != len(reference):
        raise RequestError(f"{both} did not answer the same texts: {len(one)} and {len(reference)}")
    pairs = zip(one.texts, reference.texts, strict=True)
    different = next((row for row, (text, other) in enumerate(pairs) if text != other), None)
    if different is not None:
        raise RequestError(f"{both} did not answer the same texts: row {different} differs")
    if not np.array_equal(one.label_ids, reference.label_ids):
        row = np.flatnonzero(one.label_ids != reference.label_ids)[0]
        raise RequestError(f"{both} were given different labels: row {row} differs")
