"""Measures what the promotion gates judge: a challenger's answers and SavedModel against the champion's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.analysis.costs import measure_speeds
from app.analysis.slices import slice_members
from app.answers import Answers
from app.calibration import calibration_error_by_chance, expected_calibration_error
from app.errors import RequestError
from app.gates import Figures, Latency, Parity, SliceChange
from app.serving.predictor import Predictor
from app.serving.verification import VerificationError, verify
from app.statistics import Interval, paired_bootstrap, percentile_interval, weighted_mean

LATENCY_TEXTS = 50
SMALLEST_SLICE = 50  # texts; the accuracy on fewer moves by points with a single text
RESAMPLES = 20_000  # the corrected interval of many slices lies far out in the tails


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models: its answers on the test split, and its SavedModel."""

    answers: Answers
    saved_model: Path


def measure(challenger: Side, champion: Side | None) -> Figures:
    """Everything the gates need; without a champion only what the challenger has by itself.

    Raises:
        RequestError: the two did not answer the same texts.
    """
    answers = challenger.answers
    if champion is not None:
        check_same_texts(answers, champion.answers)
    return Figures(
        count=len(answers),
        accuracy_difference=None if champion is None else accuracy_difference(answers, champion.answers),
        expected_calibration_error=expected_calibration_error(answers.label_ids, answers.probabilities),
        calibration_error_by_chance=float(np.quantile(calibration_error_by_chance(answers.probabilities), 0.95)),
        slices=() if champion is None else slice_changes(answers, champion.answers),
        latency=measure_latency(challenger, champion),
        parity=check_parity(challenger.saved_model),
    )


def check_same_texts(first: Answers, second: Answers) -> None:
    """RequestError unless both answered the same labelled texts."""
    for what, same in (
        ("label names", first.label_names == second.label_names),
        ("texts", first.texts == second.texts),
        ("labels of the texts", np.array_equal(first.label_ids, second.label_ids)),
    ):
        if not same:
            raise RequestError(
                f"{first.name} and {second.name} did not answer the same test split: their {what} differ. "
                "Train both on the same data"
            )


def accuracy_difference(challenger: Answers, champion: Answers, *, seed: int = 0) -> Interval:
    """Accuracy of the challenger less that of the champion, with its paired 95% interval."""
    means = weighted_mean(challenger.correct), weighted_mean(champion.correct)
    return paired_bootstrap(*means, len(challenger), seed=seed)


def slice_changes(challenger: Answers, champion: Answers, *, seed: int = 0) -> tuple[SliceChange, ...]:
    """The change of accuracy on every slice of `app.analysis.slices` with at least `SMALLEST_SLICE` texts.

    As there, as many texts are outside it, and pieces and the cut are those of one model: the champion's.
    The intervals together hold at 95%: each one is at level 1 - 0.05 / slices (Dunn, 1961, "Multiple comparisons
    among means", after Bonferroni).
    """
    change = challenger.correct.astype(np.int64) - champion.correct
    large = slice_members(champion, SMALLEST_SLICE)
    return tuple(
        SliceChange(one.name, int(one.rows.sum()), _interval_of_change(change[one.rows], 1 - 0.05 / len(large), seed))
        for one in large
    )


def measure_latency(challenger: Side, champion: Side | None) -> Latency:
    """Median milliseconds of one text alone, both in this process, taking turns."""
    texts = challenger.answers.texts
    sample = [texts[row % len(texts)] for row in range(LATENCY_TEXTS)]
    sides = {"challenger": challenger, **({} if champion is None else {"champion": champion})}
    predictors = {name: Predictor(side.saved_model) for name, side in sides.items()}
    speeds = measure_speeds(predictors, sample, rounds=1)
    return Latency(
        speeds["challenger"].p50_milliseconds, None if champion is None else speeds["champion"].p50_milliseconds
    )


def check_parity(saved_model: Path) -> Parity:
    """Whether the SavedModel answers in fresh processes as its golden answers say."""
    try:
        found = verify(saved_model)
    except VerificationError as error:
        count, difference = (0, float("inf"))
        if error.verification is not None:
            count, difference = error.verification.golden_texts, error.verification.largest_difference
        return Parity(count, difference, str(error))
    return Parity(found.golden_texts, found.largest_difference, None)


def _interval_of_change(change: npt.NDArray[np.int64], level: float, seed: int) -> Interval:
    """The mean of int64[n] of -1, 0 and 1 with its bootstrap interval.

    Drawing n of them with replacement is one draw of how many of each there are: a multinomial.
    """
    count, shares = len(change), [np.mean(change == value) for value in (1, -1, 0)]
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=RESAMPLES)
    return percentile_interval(float(change.mean()), (drawn[:, 0] - drawn[:, 1]) / count, level=level)
