"""Runs of several seeds, put together: one line a system, and what each change of an ablation takes away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from code_version import called
from trained_runs import RunStore, TrainedRecord

from app import wording
from app.metrics import Evaluation, evaluate_seeds
from app.pairs import Pair, Side, accuracy_side, adjust, make_pair

COLUMNS = (
    "data (train / test rows)",
    "system",
    "seeds",
    "accuracy [95%]",
    "encoder alone",
    "macro-F1",
    "log loss",
    "CPU minutes",
    "text from outside",
    "parameters",
)
ABLATION = (
    "configuration",
    "seeds",
    "accuracy [95%]",
    "encoder alone",
    "log loss",
    "CPU minutes",
    "what the change takes away",
    "p",
)


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one system on one data set, one a seed; none, and a reason in `note`, where there are none.

    version: of the code that the system would be trained with now.
    """

    data: str
    system: str
    runs: tuple[TrainedRecord, ...]
    evaluation: Evaluation | None
    note: str | None = None
    version: str = ""


def make_row(
    data: str, system: str, runs: Sequence[TrainedRecord], store: RunStore, note: str | None = None, *, version: str
) -> Row:
    """Evaluate the seeds together: means, and intervals that cover texts and, from two seeds on, seeds."""
    if not runs:
        return Row(data, system, (), None, note, version)
    label_ids, probabilities = together(runs, store)
    evaluation = evaluate_seeds(label_ids, probabilities, runs[0].label_names)
    return Row(data, system, tuple(runs), evaluation, note, version)


def together(runs: Sequence[TrainedRecord], store: RunStore) -> tuple[np.ndarray, np.ndarray]:
    """Label ids int[n], and probabilities float[seeds, n, c] of all the runs."""
    answers = [store.answers(run.key) for run in runs]
    return answers[0][0], np.stack([probabilities for _, probabilities in answers])


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, in their order; a data set is named in its first row."""
    lines, before = [], None
    for row in rows:
        lines.append(_line(row, named=row.data != before))
        before = row.data
    return table(COLUMNS, lines)


def _line(row: Row, named: bool) -> list[str]:
    data = row.data if named else ""
    if row.evaluation is None:
        return [data, row.system, "0", row.note or "not trained", *[""] * (len(COLUMNS) - 4)]
    first, metrics = row.runs[0], row.evaluation.metrics
    return [
        f"{data} ({first.train_rows:,} / {first.test_rows:,})" if named else "",
        row.system if row.note is None else f"{row.system} ({row.note})",
        str(len(row.runs)),
        wording.interval(metrics["accuracy"]),
        encoder_alone(row.runs),
        wording.decimals(metrics["macro_f1"].value),
        wording.decimals(metrics["log_loss"].value),
        cpu_minutes(row.runs),
        first.outside_text or "none",
        f"{first.parameters:,}",
    ]


def encoder_alone(runs: Sequence[TrainedRecord]) -> str:
    """Accuracy of the encoder without the n-grams beside it, the mean over the seeds; empty where there are none."""
    known = [run.encoder_accuracy for run in runs if run.encoder_accuracy is not None]
    if not known:
        return ""
    part = f" ({len(known)} of {len(runs)} seeds)" if len(known) < len(runs) else ""  # not kept in the older ones
    return wording.decimals(float(np.mean(known))) + part


def versions_note(rows: Sequence[Row]) -> str:
    """What to say under a table that has runs of other versions of the code than the present one; empty: nothing.

    Peers have versions of their own, so what two systems were trained with is not compared.
    """
    told = []
    for row in rows:
        kept = Counter(called(run.code) for run in row.runs if run.code != row.version)
        if kept:
            counts = ", ".join(f"{count} of {version}" for version, count in kept.items())
            told.append(f"{row.data}, {row.system}: {counts}, now {called(row.version)}, {len(row.runs)} runs in all")
    if not told:
        return ""
    heading = "Runs of other versions of the code than the present one, which --anew trains again:"
    return "\n".join(["", heading, *(f"- {line}" for line in told)])


def cpu_minutes(runs: Sequence[TrainedRecord]) -> str:
    """Minutes of one training, the mean over the seeds."""
    minutes = np.mean([run.training_cpu_seconds for run in runs]) / 60
    return f"{minutes:.2f}" if minutes < 1 else f"{minutes:.1f}"


def ablate(base: Row, changes: Sequence[Row], store: RunStore) -> list[Pair]:
    """The base against each change on the same test texts: accuracies of the base less those of the change.

    The p-values are adjusted by Holm for the number of changes.
    """
    one = _side(base, store)
    return list(adjust([make_pair(one, _side(change, store), num_pairs=len(changes)) for change in changes]))


def _side(row: Row, store: RunStore) -> Side:
    label_ids, probabilities = together(row.runs, store)
    return accuracy_side(row.system, label_ids, probabilities.argmax(axis=2))


def ablation_markdown(base: Row, changes: Sequence[Row], pairs: Sequence[Pair]) -> str:
    """The base, then a line for each change."""
    found: Mapping[str, Pair] = {pair.second: pair for pair in pairs}
    return table(ABLATION, [_ablation_line(row, found.get(row.system)) for row in (base, *changes)])


def _ablation_line(row: Row, pair: Pair | None) -> list[str]:
    if row.evaluation is None:
        return [row.system, "0", row.note or "not trained", *[""] * (len(ABLATION) - 3)]
    metrics = row.evaluation.metrics
    return [
        row.system,
        str(len(row.runs)),
        wording.interval(metrics["accuracy"]),
        encoder_alone(row.runs),
        wording.decimals(metrics["log_loss"].value),
        cpu_minutes(row.runs),
        wording.points(pair.difference) if pair else "",
        wording.p_value(pair.adjusted_p_value).removeprefix("p ").removeprefix("= ") if pair else "",
    ]


def table(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns padded so that it can be read as it is."""
    cells = [list(heading), *[[text.replace("|", "\\|") for text in line] for line in lines]]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heading))]
    shown = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
    shown.insert(1, " | ".join("-" * max(3, width) for width in widths))
    return "\n".join(f"| {line} |" for line in shown)
