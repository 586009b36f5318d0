"""What the report says first: the differences, the table of models, every metric, and the seeds."""

from __future__ import annotations

from collections.abc import Mapping

from app import wording
from app.compared import Compared
from app.highlights import seed_sentences
from app.pairs import Pair
from app.report.charts import (
    difference_axis,
    difference_line,
    difference_strip,
    seeds_axis,
    seeds_line,
    seeds_strip,
)
from app.report.tables import plain_table
from app.report.view import Forest, ForestLine, Part, Section, colours
from app.statistics import Interval

# Metrics of which less is better, and those that are fractions, whose differences read best in points.
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "expected_calibration_error"})
FRACTIONS = frozenset({"accuracy", "macro_f1", "auroc", "expected_calibration_error"})
TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "log_loss": "log loss",
    "auroc": "AUROC",
    "brier": "Brier score",
    "expected_calibration_error": "expected calibration error",
}
MEANINGS = {
    "better": "the first is better",
    "worse": "the first is worse",
    "same": "the same answers",
    "borderline": "borderline",
    "undecided": "cannot be told apart",
}


def differences(compared: Compared) -> Section:
    """The forest plot of the accuracies of every pair, with what was tested and what this test set can show."""
    pairs = compared.comparison.pairs
    if not pairs:
        return Section("differences", "One model", ("There is no second model to compare it with.",))
    margin = compared.setting.margin
    strip = difference_strip([pair.difference for pair in pairs], lower_is_better=False, margin=margin)
    lines = tuple(
        ForestLine(
            f"{pair.first} − {pair.second}",
            difference_line(strip, pair.difference, _certainty(pair.outcome in ("better", "worse")), margin),
            _points(pair.difference),
            f"{wording.p_value(pair.adjusted_p_value)}, {MEANINGS[pair.outcome]}",
        )
        for pair in pairs
    )
    plot = Forest(
        caption="Accuracy of the first model less that of the second, with its 95% interval; 0 is no difference."
        + (f" The band is the margin, {wording.margin(margin)} to either side." if margin else ""),
        heading="pair",
        towards="← second better, first better →",
        figure="points",
        lines=lines,
        axis=difference_axis(strip, points=True),
        p_heading=_test_name(pairs),
    )
    return Section("differences", "Differences in accuracy", (), (Part(forests=(plot,)),))


def rests_on(compared: Compared) -> str:
    """What the headline stands on: examples and seeds, corrections, what could be seen at all."""
    comparison = compared.comparison
    said = [f"On {compared.num_examples:,} test {compared.setting.noun}, the same for every model."]
    if not comparison.pairs:
        return said[0]
    several = any(pair.several_seeds for pair in comparison.pairs)
    if several:
        counts = ", ".join(f"{row.name} {row.num_seeds}" for row in comparison.rows)
        said.append(f"Trained with several seeds ({counts}): intervals and t-tests cover seeds and examples.")
    else:
        said.append("One training seed a model: how much another seed would change is not in the intervals.")
    if len(comparison.pairs) > 1:
        said.append(f"Each p is corrected by Holm for {len(comparison.pairs)} pairs.")
    smallest = comparison.pairs[0].smallest_difference
    if smallest is not None:
        said.append(
            f"The smallest difference that would be found here four times in five: {wording.size_in_points(smallest)}."
        )
    return " ".join(said)


def summary(compared: Compared) -> Section:
    """The models side by side, and the differences in every other metric."""
    comparison = compared.comparison
    unfair = f"{compared.unfair_label} " if compared.setting.unfair else ""
    shown = plain_table("models-table", f"{unfair}Best accuracy first; intervals are 95%.", comparison.table())
    names = [name for name in TITLES if name != "accuracy" and comparison.pairs and name in comparison.pairs[0].metrics]
    plots = tuple(_metric_forest(name, comparison.pairs) for name in names)
    parts = [Part(tables=(shown,))]
    if plots:
        said = (
            "On every scale the first model of a pair is better to the right; log loss and errors run backwards. "
            "A full dot: the interval excludes 0, with no correction for how many intervals there are."
        )
        parts.append(Part("Every other metric", (said,), forests=plots))
    return Section("models", "The models side by side", (), tuple(parts))


def seeds(compared: Compared) -> Section | None:
    """Every seed of every model, their mean and its interval; None where no model has two."""
    if not compared.several_seeds:
        return None
    accuracies, classes = {one.name: one.accuracies for one in compared.contestants}, colours(compared.names)
    rows = {row.name: row.accuracy for row in compared.comparison.rows}
    strip = seeds_strip(accuracies, list(rows.values()))
    lines = tuple(
        ForestLine(
            name,
            seeds_line(strip, values, rows[name], classes[name]),
            wording.interval(rows[name]),
            class_=classes[name],
        )
        for name, values in accuracies.items()
    )
    plot = Forest(
        caption="Test accuracy: a ring is a seed, the dot below their mean, the line its 95% interval.",
        heading="model",
        towards="",
        figure="mean accuracy",
        lines=lines,
        axis=seeds_axis(strip),
    )
    return Section("seeds", "Training seeds", seed_sentences(compared), (Part(forests=(plot,)),))


def _metric_forest(name: str, pairs: tuple[Pair, ...]) -> Forest:
    found: Mapping[str, Interval] = {f"{pair.first} − {pair.second}": pair.metrics[name] for pair in pairs}
    strip = difference_strip(list(found.values()), lower_is_better=name in LOWER_IS_BETTER)
    in_points = name in FRACTIONS
    lines = tuple(
        ForestLine(
            pair,
            difference_line(strip, interval, _certainty(interval.low > 0 or interval.high < 0)),
            _points(interval) if in_points else _plain(interval),
        )
        for pair, interval in found.items()
    )
    lower = ", lower is better" if name in LOWER_IS_BETTER else ""
    return Forest(
        caption=f"{TITLES[name]}{', in points' if in_points else ''}{lower}",
        heading="pair",
        towards="",
        figure="difference",
        lines=lines,
        axis=difference_axis(strip, points=in_points),
    )


def headline(compared: Compared) -> tuple[str, tuple[str, ...]]:
    """The verdict on the best two in a few words, and the sentences that say it in full."""
    pairs, sentences = compared.comparison.pairs, compared.comparison.sentences
    if not pairs:
        return sentences[0], sentences[1:]
    pair = pairs[0]
    both = f"{pair.first} and {pair.second}"
    if pair.outcome in ("better", "worse"):
        better, worse = (pair.first, pair.second) if pair.outcome == "better" else (pair.second, pair.first)
        return f"{better} is better than {worse} by {wording.points_size(pair.difference)}", sentences
    if pair.outcome == "same":
        return f"{both} give the same answers", sentences
    if pair.equivalence is not None and pair.equivalence.shown:
        return f"{both} are within {wording.margin(pair.equivalence.margin)} of each other", sentences
    if pair.outcome == "borderline":
        return f"Whether {both} differ is borderline", sentences
    return f"{both} cannot be told apart on these {compared.num_examples:,} {compared.setting.noun}", sentences


def _test_name(pairs: tuple[Pair, ...]) -> str:
    name = "t-test" if any(pair.several_seeds for pair in pairs) else "McNemar's test"
    return f"{name}, corrected" if len(pairs) > 1 else name


def _points(interval: Interval) -> str:
    return wording.points(interval).replace(" points", "")


def _certainty(shown: bool) -> str:
    """The class of a difference: one that is shown is filled, any other hollow."""
    return "shown" if shown else "open"


def _plain(interval: Interval) -> str:
    value, low, high = (f"{end:+.3f}" for end in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"
