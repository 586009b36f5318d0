"""Runs of several seeds, put together: one line a system, and what each change of an ablation takes away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from trained_runs import RunStore, TrainedRecord

from app import wording
from app.metrics import Evaluation, evaluate_seeds
from app.pairs import Pair, Side, accuracy_side, adjust, make_pair

COLUMNS = (
    "data (train / test rows)",
    "system",
    "seeds",
    "accuracy [95%]",
    "macro-F1",
    "log loss",
    "CPU minutes",
    "text from outside",
    "parameters",
)
ABLATION = ("configuration", "seeds", "accuracy [95%]", "log loss", "CPU minutes", "what the change takes away", "p")


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one system on one data set, one a seed; none, and a reason in `note`, where there are none."""

    data: str
    system: str
    runs: tuple[TrainedRecord, ...]
    evaluation: Evaluation | None
    note: str | None = None


def make_row(data: str, system: str, runs: Sequence[TrainedRecord], store: RunStore, note: str | None = None) -> Row:
    """Evaluate the seeds together: means, and intervals that cover texts and, from two seeds on, seeds."""
    if not runs:
        return Row(data, system, (), None, note)
    label_ids, probabilities = together(runs, store)
    return Row(data, system, tuple(runs), evaluate_seeds(label_ids, probabilities, runs[0].label_names), note)


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
        wording.decimals(metrics["macro_f1"].value),
        wording.decimals(metrics["log_loss"].value),
        cpu_minutes(row.runs),
        first.outside_text or "none",
        f"{first.parameters:,}",
    ]


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
