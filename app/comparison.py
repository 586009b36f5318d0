"""Which model is better on the same test examples, and can this test set tell: the table and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from app import wording
from app.errors import RequestError
from app.luck import lucky_seeds as lucky_seeds
from app.metrics import METRICS, Evaluation, Examples, all_metrics, each, each_seed
from app.pairs import Pair, Side, accuracy_side, adjust, make_pair
from app.statistics import RESAMPLES, FloatArray, Interval, Resampling, paired_permutation
from app.verdict import FLOOR, p_text, verdict

# Not accuracy, which McNemar's test is about, nor AUROC, which takes as long as all of these.
PERMUTED = ("macro_f1", "log_loss", "brier", "expected_calibration_error")
# Answers that the permutations of a pair swap at most: 2,000 permutations of 2,500 examples, fewer of more examples.
SWAPPED_ANSWERS = 5_000_000
FEWEST_PERMUTATIONS = 100


@dataclass(frozen=True, eq=False)
class Contender:
    """A model with its answers on the test split, from one training seed or several.

    label_ids int[n] and probabilities float[seeds, n, c] are those `evaluation` was made from, in the order of the
    test split; a single run is `probabilities[None]`. training_seconds: wall time of fitting, milliseconds_per_text:
    median of one text at a time, both means over seeds.
    """

    name: str
    label_ids: npt.NDArray[np.integer[Any]]
    probabilities: npt.NDArray[np.floating[Any]]
    evaluation: Evaluation
    training_seconds: float
    milliseconds_per_text: float

    @property
    def num_seeds(self) -> int:
        """How many times the model was trained."""
        return len(self.probabilities)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The likeliest label id of each example by each seed, int64[seeds, n]."""
        return np.argmax(self.probabilities, axis=2)


@dataclass(frozen=True)
class Row:
    """One line of the table; times in seconds and milliseconds."""

    name: str
    num_seeds: int
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
            "seeds": self.num_seeds,
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
        """The rows as text by column heading, the same headings in each; seeds where a model has several."""
        several = any(row.num_seeds > 1 for row in self.rows)
        return [
            {
                "model": row.name,
                **({"seeds": str(row.num_seeds)} if several else {}),
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


def compare(
    contenders: Sequence[Contender], *, noun: str = "examples", seed: int = 0, margin: float | None = None
) -> Comparison:
    """Compare models on the same test examples. It reports; choosing a winner is validation's part.

    Differences come pair by pair: with McNemar's exact test and BCa intervals, or with a test and intervals that cover
    training seeds too where a model has several; p-values are adjusted by Holm for the number of pairs. margin: the
    largest difference of accuracies, a fraction of 1, that does not matter; equivalence is tested against it. `noun`
    is what examples are called in the sentences ("reviews"). RequestError for no contender, a name given twice,
    contenders that saw different test examples, or a margin that is no fraction.
    """
    _check_alike(contenders)
    if margin is not None and not 0 < margin < 1:
        raise RequestError(f"margin {margin:g} is not between 0 and 1; 0.02 is two points of accuracy")
    ranked = sorted(contenders, key=_place)
    # A stable sort: it only moves the floor behind the others, where it is the second of its pairs.
    floor_last = sorted(ranked, key=lambda contender: contender.name == FLOOR)
    duels = list(combinations(floor_last, 2))
    sides = {contender.name: _side(contender, seed) for contender in floor_last}
    pairs = adjust(
        [
            replace(
                make_pair(sides[one.name], sides[other.name], num_pairs=len(duels), margin=margin),
                permutation_p_values=permutation_p_values(one, other, seed=seed),
            )
            for one, other in duels
        ]
    )
    sentences = verdict(pairs, noun) if pairs else [alone(ranked[0], noun, seed)]
    return Comparison(tuple(_row(contender) for contender in ranked), pairs, tuple(sentences))


def permutation_p_values(first: Contender, second: Contender, *, seed: int = 0) -> dict[str, float]:
    """The p of each metric in `PERMUTED`, where it is defined, that two trained models are interchangeable.

    `app.statistics.paired_permutation`, with all metrics from the same `RESAMPLES` permutations, or as many as make
    `SWAPPED_ANSWERS`. Empty for several seeds, of which swapping answers says nothing, and for so many examples
    that fewer than `FEWEST_PERMUTATIONS` would be left.
    """
    count = len(first.label_ids)
    permutations = min(RESAMPLES, SWAPPED_ANSWERS // count)
    if (first.num_seeds, second.num_seeds) != (1, 1) or permutations < FEWEST_PERMUTATIONS:
        return {}
    probabilities = np.concatenate([first.probabilities[0], second.probabilities[0]])
    examples = Examples(np.concatenate([first.label_ids, first.label_ids]), probabilities)
    metrics = [METRICS[name](examples) for name in PERMUTED]

    def both(weights: FloatArray) -> FloatArray:
        return np.column_stack([metric(weights) for metric in metrics])

    found = paired_permutation(both, count, permutations=permutations, seed=seed)
    return {name: float(p_value) for name, p_value in zip(PERMUTED, found, strict=True) if not np.isnan(p_value)}


def alone(contender: Contender, noun: str, seed: int = 0) -> str:
    """A single model's accuracy, and whether it beats always giving the test split's commonest label."""
    evaluation = contender.evaluation
    commonest = int(np.bincount(contender.label_ids).argmax())
    predicted = contender.predicted
    pair = make_pair(
        accuracy_side(contender.name, contender.label_ids, predicted, seed=seed),
        # As many seeds of it, none different: that answer has no spread.
        accuracy_side("that", contender.label_ids, np.full_like(predicted, commonest), seed=seed),
    )
    share = float(np.mean(contender.label_ids == commonest))
    seeds = f" over {contender.num_seeds} seeds" if pair.several_seeds else ""
    said = (
        f"{contender.name}: accuracy {wording.interval(evaluation.metrics['accuracy'])} "
        f"on {evaluation.count:,} {noun}{seeds}. Always answering '{evaluation.label_names[commonest]}', "
        f"the commonest label here, gives {wording.decimals(share)}"
    )
    if pair.outcome == "same":
        return f"{said}, and that is all {contender.name} does."
    meaning = {
        "better": f"{contender.name} is better than that",
        "worse": f"{contender.name} is worse than that",
        "borderline": f"whether {contender.name} is better than that is borderline",
        "undecided": f"{contender.name} is not shown to be better than that",
    }[pair.outcome]
    return f"{said}; {meaning}: {wording.points(pair.difference)}, {p_text(pair)}."


def _side(contender: Contender, seed: int) -> Side:
    seeds = each_seed(contender.label_ids, contender.probabilities)
    measured = Resampling(each(all_metrics, seeds), len(contender.label_ids), seed)
    return Side(contender.name, contender.label_ids, contender.predicted, measured, tuple(METRICS))


def _place(contender: Contender) -> tuple[float, float, str]:
    """Sorts by accuracy, best first; equals by log loss, then name."""
    metrics = contender.evaluation.metrics
    return -metrics["accuracy"].value, metrics["log_loss"].value, contender.name


def _row(contender: Contender) -> Row:
    metrics = contender.evaluation.metrics
    return Row(
        name=contender.name,
        num_seeds=contender.num_seeds,
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
        shape = contender.probabilities.shape
        if len(shape) != 3 or not shape[0]:
            raise RequestError(f"{contender.name}: probabilities {shape} are not [seeds, examples, classes]")
        if shape[1] != len(contender.label_ids):
            raise RequestError(
                f"{contender.name}: {shape[1]} rows of probabilities for {len(contender.label_ids)} label_ids"
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
