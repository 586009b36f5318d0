"""Which model is better on the same test examples, and can this test set tell: the table and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app import wording
from app.errors import RequestError
from app.metrics import Evaluation
from app.statistics import Interval, McNemar, examples_needed, mcnemar_exact, paired_bootstrap, weighted_mean

# The contender that a deep model has to beat to be worth its cost.
FLOOR = "linear"
SIGNIFICANCE = 0.05

Outcome = Literal["same", "better", "worse", "borderline", "undecided"]


@dataclass(frozen=True, eq=False)
class Contender:
    """A model with its answers on the test split.

    label_ids int[n] and probabilities float[n, c] are those `evaluation` was made from, in the order of the
    test split. training_seconds: wall time of fitting; milliseconds_per_text: median of one text at a time.
    """

    name: str
    evaluation: Evaluation
    label_ids: npt.NDArray[np.integer[Any]]
    probabilities: npt.NDArray[np.floating[Any]]
    training_seconds: float
    milliseconds_per_text: float

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The likeliest label id of each example, int64[n]."""
        return np.argmax(self.probabilities, axis=1)


@dataclass(frozen=True)
class Pair:
    """Two models on `count` examples: accuracy of the first less that of the second, as a fraction of 1.

    The first is the better placed one, except that the floor always comes second. same_labels: not one
    predicted label differs. examples_needed: test examples that would show this difference at 80% power; None
    when both are right equally often.
    """

    first: str
    second: str
    count: int
    difference: Interval
    mcnemar: McNemar
    same_labels: bool
    examples_needed: int | None

    @property
    def outcome(self) -> Outcome:
        """What interval and test say of the first model; "borderline" when only one sees a difference."""
        if self.same_labels:
            return "same"
        excludes_zero = self.difference.low > 0 or self.difference.high < 0
        rejects = self.mcnemar.p_value < SIGNIFICANCE
        if excludes_zero and rejects:
            return "better" if self.difference.value > 0 else "worse"
        return "borderline" if excludes_zero or rejects else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "first": self.first,
            "second": self.second,
            "accuracy_difference": self.difference.to_dict(),
            "mcnemar": {"b": self.mcnemar.b, "c": self.mcnemar.c, "p_value": self.mcnemar.p_value},
            "outcome": self.outcome,
            "examples_needed": self.examples_needed,
        }


@dataclass(frozen=True)
class Row:
    """One line of the table; times in seconds and milliseconds."""

    name: str
    accuracy: Interval
    macro_f1: Interval
    log_loss: Interval
    calibration_error: Interval
    training_seconds: float
    milliseconds_per_text: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.name,
            "accuracy": self.accuracy.to_dict(),
            "macro_f1": self.macro_f1.to_dict(),
            "log_loss": self.log_loss.to_dict(),
            "expected_calibration_error": self.calibration_error.to_dict(),
            "training_seconds": self.training_seconds,
            "milliseconds_per_text": self.milliseconds_per_text,
        }


@dataclass(frozen=True)
class Comparison:
    """Rows by accuracy, best first; every pair of models; and the verdict as plain sentences."""

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    sentences: tuple[str, ...]

    def table(self) -> list[dict[str, str]]:
        """The rows as text by column heading, the same headings in each."""
        return [
            {
                "model": row.name,
                "accuracy": wording.interval(row.accuracy),
                "macro-F1": wording.decimals(row.macro_f1.value),
                "log loss": wording.decimals(row.log_loss.value),
                "calibration error": wording.decimals(row.calibration_error.value),
                "training": wording.duration(row.training_seconds),
                "one text": wording.milliseconds(row.milliseconds_per_text),
            }
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "sentences": list(self.sentences),
        }


def compare(contenders: Sequence[Contender], *, noun: str = "examples", seed: int = 0) -> Comparison:
    """Compare models on the same test examples. It reports; choosing a winner is validation's part.

    Differences of accuracy come with a paired bootstrap interval and McNemar's exact test, pair by pair,
    without a correction for their number. `noun` is what examples are called in the sentences ("reviews").
    RequestError for no contender, a name given twice, or contenders that saw different test examples.
    """
    _check_alike(contenders)
    ranked = sorted(contenders, key=_place)
    # A stable sort: it only moves the floor behind the others, where it is the second of its pairs.
    floor_last = sorted(ranked, key=lambda contender: contender.name == FLOOR)
    pairs = tuple(_pair(first, second, seed) for first, second in combinations(floor_last, 2))
    sentences = verdict(pairs, noun) if pairs else [alone(ranked[0], noun, seed)]
    return Comparison(tuple(_row(contender) for contender in ranked), pairs, tuple(sentences))


def verdict(pairs: Sequence[Pair], noun: str) -> list[str]:
    """What a careful colleague would say: the best deep model against each other one, then against the floor.

    `pairs` as in `Comparison`: the first pair's first model is the best of those that are not the floor.
    """
    best = pairs[0].first
    against_floor = [pair for pair in pairs if pair.second == FLOOR]
    sentences = [pair_sentence(pair, noun) for pair in pairs if pair.first == best and pair.second != FLOOR]
    if not sentences:
        return [pair_sentence(against_floor[0], noun), floor_sentence(against_floor)]
    return [*sentences, floor_sentence(against_floor)] if against_floor else sentences


def pair_sentence(pair: Pair, noun: str) -> str:
    """One pair's difference with its interval and p, and what that means."""
    if pair.outcome == "same":
        return f"{pair.first} and {pair.second} give every one of the {pair.count:,} {noun} the same label."
    test = f"McNemar {wording.p_value(pair.mcnemar.p_value)}"
    if pair.outcome in ("better", "worse"):
        better, worse, gain = pair.first, pair.second, pair.difference
        if pair.outcome == "worse":
            better, worse, gain = worse, better, -gain
        size = wording.points_size(gain)
        return f"{better} is better than {worse} by {size} {wording.points_range(gain)}, {test}."
    found = f"{pair.first} against {pair.second}: {wording.points(pair.difference)}, {test}."
    return f"{found} {_doubt(pair, noun)}"


def _doubt(pair: Pair, noun: str) -> str:
    """What to make of a difference that is not shown, and how many examples would show it."""
    if pair.examples_needed is None:
        return "This test set cannot tell them apart: both are right equally often."
    if pair.outcome == "undecided":
        said = "This test set cannot tell them apart"
    elif pair.mcnemar.p_value < SIGNIFICANCE:
        said = "This is borderline: the test rejects equality, the interval includes 0"
    else:
        said = "This is borderline: the interval excludes 0, the test does not reject equality"
    # On a small test set the exact test is coarse and the estimate can fall below what was tested.
    if pair.examples_needed <= pair.count:
        return f"{said}."
    needed = wording.about(pair.examples_needed)
    return f"{said}; it would take about {needed} {noun} to show a difference this small."


def floor_sentence(pairs: Sequence[Pair]) -> str:
    """Whether the deep models beat the floor, from their pairs with it; of several, by how much each."""
    if len(pairs) == 1:
        return _alone_against_floor(pairs[0])
    winners = [pair.first for pair in pairs if pair.outcome == "better"]
    if len(winners) == len(pairs):
        said = "Both beat" if len(pairs) == 2 else "All beat"
    elif winners:
        said = f"Only {wording.listing(winners)} {'beats' if len(winners) == 1 else 'beat'}"
    else:
        said = "Neither beats" if len(pairs) == 2 else "None of them beats"
    clauses = [", ".join(f"{pair.first} {wording.points(pair.difference)}" for pair in pairs)]
    for outcome, meaning in (("worse", "worse than it"), ("borderline", "borderline")):
        if names := [pair.first for pair in pairs if pair.outcome == outcome]:
            clauses.append(f"{wording.listing(names)} {'is' if len(names) == 1 else 'are'} {meaning}")
    return f"{said} the {FLOOR} floor here: {'; '.join(clauses)}."


def _alone_against_floor(pair: Pair) -> str:
    if pair.outcome == "borderline":
        return f"Whether {pair.first} beats the {FLOOR} floor stays open here."
    return f"{pair.first} {'beats' if pair.outcome == 'better' else 'does not beat'} the {FLOOR} floor here."


def alone(contender: Contender, noun: str, seed: int = 0) -> str:
    """A single model's accuracy, and whether it beats always giving the test split's commonest label."""
    evaluation = contender.evaluation
    commonest = int(np.bincount(contender.label_ids).argmax())
    always = np.full(evaluation.count, commonest)
    pair = _pair_of_labels((contender.name, "that"), contender.label_ids, contender.predicted, always, seed)
    share = evaluation.metrics["accuracy"].value - pair.difference.value
    said = (
        f"{contender.name}: accuracy {wording.interval(evaluation.metrics['accuracy'])} "
        f"on {evaluation.count:,} {noun}. Always answering '{evaluation.label_names[commonest]}', "
        f"the commonest label here, gives {wording.decimals(share)}"
    )
    if pair.outcome == "same":
        return f"{said}, and that is all {contender.name} does."
    test = f"McNemar {wording.p_value(pair.mcnemar.p_value)}"
    meaning = {
        "better": f"{contender.name} is better than that",
        "worse": f"{contender.name} is worse than that",
        "borderline": f"whether {contender.name} is better than that is borderline",
        "undecided": f"{contender.name} is not shown to be better than that",
    }[pair.outcome]
    return f"{said}; {meaning}: {wording.points(pair.difference)}, {test}."


def _pair(first: Contender, second: Contender, seed: int) -> Pair:
    names = (first.name, second.name)
    return _pair_of_labels(names, first.label_ids, first.predicted, second.predicted, seed)


def _pair_of_labels(
    names: tuple[str, str],
    label_ids: npt.NDArray[Any],
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    seed: int,
) -> Pair:
    """The pair of two models from the true label ids int[n] and those each of them predicts, int[n]."""
    first_correct, second_correct = first == label_ids, second == label_ids
    count = len(label_ids)
    test = mcnemar_exact(first_correct, second_correct)
    means = weighted_mean(first_correct), weighted_mean(second_correct)
    return Pair(
        first=names[0],
        second=names[1],
        count=count,
        difference=paired_bootstrap(*means, count, seed=seed),
        mcnemar=test,
        same_labels=bool((first == second).all()),
        examples_needed=examples_needed(test.b, test.c, count),
    )


def _place(contender: Contender) -> tuple[float, float, str]:
    """Sorts by accuracy, best first; equals by log loss, then name."""
    metrics = contender.evaluation.metrics
    return -metrics["accuracy"].value, metrics["log_loss"].value, contender.name


def _row(contender: Contender) -> Row:
    metrics = contender.evaluation.metrics
    return Row(
        name=contender.name,
        accuracy=metrics["accuracy"],
        macro_f1=metrics["macro_f1"],
        log_loss=metrics["log_loss"],
        calibration_error=metrics["expected_calibration_error"],
        training_seconds=contender.training_seconds,
        milliseconds_per_text=contender.milliseconds_per_text,
    )


def _check_alike(contenders: Sequence[Contender]) -> None:
    """RequestError unless all were asked the same test examples and have names of their own."""
    if not contenders:
        raise RequestError("nothing to compare: no model was given")
    names = [contender.name for contender in contenders]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise RequestError(f"{doubled[0]} stands {names.count(doubled[0])} times among {', '.join(names)}")
    reference = contenders[0]
    for contender in contenders:
        if len(contender.probabilities) != len(contender.label_ids):
            raise RequestError(
                f"{contender.name}: {len(contender.probabilities)} rows of probabilities "
                f"for {len(contender.label_ids)} label_ids"
            )
        if contender.evaluation.label_names != reference.evaluation.label_names:
            raise RequestError(
                f"{contender.name} has the labels {', '.join(contender.evaluation.label_names)}, "
                f"{reference.name} has {', '.join(reference.evaluation.label_names)}"
            )
        if not np.array_equal(contender.label_ids, reference.label_ids):
            raise RequestError(
                f"{contender.name} and {reference.name} were not tested on the same examples: their label_ids differ"
            )
