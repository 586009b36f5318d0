"""The command `tune`: search a model's settings on validation within a budget of time."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding

from app import cli_options as options
from app.cli_output import DEFAULT_ARTIFACTS, Artifacts, AsJson, Settings, next_commands
from app.errors import RequestError

if TYPE_CHECKING:
    from app.config import RunConfig
    from app.fitting import EpochReport
    from app.studies import Study, TrialRecord
    from app.training import Material
    from app.tuning import Budget, Tuned

PLAIN_WIDTH = 100  # of lines when nobody says how wide the window is
INDENT = 2
SECONDS_OF = {"s": 1, "m": 60, "h": 3600}
EXIT_FAILED = 1


def tune(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="linear, lstm, transformer, cnn, gru, performer, fnet or one you added.")
    ],
    budget: Annotated[str, typer.Option(help="Time of all trials together, over every start: 90s, 20m, 2h.")] = "20m",
    trials: Annotated[
        int | None, typer.Option(min=1, help="At most so many trials, if the budget does not end before.")
    ] = None,
    data: options.Data = None,
    validation_data: options.ValidationData = None,
    test_data: options.TestData = None,
    archive: options.Archive = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    split_column: options.SplitColumn = None,
    group_column: options.GroupColumn = None,
    slice_column: options.SliceColumn = None,
    name: options.Name = None,
    config: options.Config = None,
    settings: Settings = None,
    init: options.Init = None,
    vectors: options.Vectors = None,
    seed: options.Seed = None,
    deterministic: options.Deterministic = False,
    long: options.Long = None,
    class_weights: options.ClassWeights = None,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    as_json: AsJson = False,
) -> None:
    """Search a model's settings on the validation split; started again, go on where it stopped."""
    stream = sys.stderr if as_json else sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else PLAIN_WIDTH)
    seconds = parse_budget(budget)
    console.print("loading ...", highlight=False)
    start = _resolve(model, config, options.as_overrides(context.params), artifacts)
    from app.tuning import Budget, write_best

    tuned = _search(console, start, artifacts, Budget(seconds, trials))
    _refuse_if_empty(tuned)
    path = write_best(tuned, artifacts)
    if as_json:
        print(json.dumps(as_dict(tuned, path), ensure_ascii=False, indent=2, allow_nan=False))
    _tell(console, tuned, path)


def parse_budget(text: str) -> float:
    """Read `90s`, `20m` or `1.5h` as seconds.

    Raises:
        RequestError: it is something else, or no time at all.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", text)
    seconds = float(found[1]) * SECONDS_OF[found[2]] if found else 0.0
    if not seconds:
        raise RequestError(f"--budget {text}: a number above 0 with s, m or h behind it: 90s, 20m, 2h")
    return seconds


def as_dict(tuned: Tuned, path: Path) -> dict[str, Any]:
    """Return what a program would read, JSON-able."""
    best, start = tuned.best, tuned.start
    return {
        "study": tuned.study_name,
        "data": tuned.data_name,
        "model": tuned.config.model_name,
        "ended": tuned.ended,
        "encoder_alone": tuned.encoder_alone,
        "budget_seconds": tuned.budget.seconds,
        "used_seconds": round(tuned.seconds, 3),
        "trials": tuned.counts,
        "start": start.to_dict() if start else None,
        "best": best.to_dict() if best else None,
        "config": str(path),
        "run": tuned.parent_run,
    }


class _Reporter:
    """Tells a search as it goes: a bar on a terminal, a line a trial anywhere. See `app.tuning.TuneReporter`."""

    def __init__(self, console: Console) -> None:
        from app.display import TerminalReporter

        self._console, self._terminal = console, TerminalReporter(console)

    def doing(self, what: str) -> None:
        self._terminal.doing(what)

    def downloaded(self, done: int, total: int | None) -> None:
        self._terminal.downloaded(done, total)

    def close(self) -> None:
        self._terminal.close()

    def opened(self, material: Material, study: Study, budget: Budget) -> None:
        self.close()
        self._terminal.stage("Data", material.card.lines())
        self._terminal.stage("Search", _of_study(study, budget))

    def epoch(self, report: EpochReport) -> None:
        if self._console.is_terminal:
            self._terminal.epoch(report)

    def tried(self, record: TrialRecord, is_best: bool) -> None:
        self.close()
        self._terminal.line(_of_trial(record, is_best))


def _of_study(study: Study, budget: Budget) -> list[str]:
    from app.wording import duration, listing

    records = study.records()
    if records:
        used = f"{duration(study.used_seconds)} of {duration(budget.seconds)} used"
        lines = [f"study {study.name} goes on: {len(records)} trial{'' if len(records) == 1 else 's'}, {used}"]
    else:
        lines = [f"study {study.name}: new, {duration(budget.seconds)}"]
    if study.others:
        lines.append(
            f"another study of this model and data set is there; it differs in {listing(list(study.others))}, so "
            "nothing of it is used"
        )
    return [*lines, "judged by the calibrated log loss on validation; the test split is not looked at"]


def _of_trial(record: TrialRecord, is_best: bool) -> str:
    from app.wording import duration

    start = f"trial {record.number:>3}   {duration(record.seconds)}   "
    if record.log_loss is not None and record.accuracy is not None:
        return f"{start}log loss {record.log_loss:.4f}   accuracy {record.accuracy:.3f}{'   best' if is_best else ''}"
    if record.state == "pruned":
        return f"{start}pruned after epoch {record.epochs}: worse than half of the others were"
    if record.state == "cut":
        why = "the budget is used" if record.reason == "budget" else "interrupted"
        return f"{start}cut short: {why}; tried again when the search goes on"
    return f"{start}failed: {record.reason}"


def _resolve(model: str, file: Path | None, overrides: Sequence[str], artifacts: Path) -> RunConfig:
    from app.quiet import import_tensorflow

    import_tensorflow()
    from app.config import read_toml, resolve_configs

    cache = {"cache": artifacts / "cache"}
    configs = resolve_configs([model], read_toml(file) if file else {}, overrides, cache)
    from app.pretrained_runs import locate  # imports MLflow, for which a wrong setting need not wait
    from app.tracking import Tracker

    (found,) = locate(configs, lambda: Tracker(artifacts))
    return found


def _search(console: Console, start: RunConfig, artifacts: Path, budget: Budget) -> Tuned:
    from app.tuning import tune as search

    reporter = _Reporter(console)
    try:
        # MLflow prints to standard output, which belongs to --json.
        with contextlib.redirect_stdout(sys.stderr):
            return search(start, artifacts, budget, reporter)
    finally:
        reporter.close()


def _refuse_if_empty(tuned: Tuned) -> None:
    """Without a complete trial there is nothing to write; say what would help."""
    from app.wording import duration

    if tuned.best is not None:
        return
    if tuned.ended == "budget" and all(record.state == "cut" for record in tuned.records):
        raise RequestError(
            f"--budget {duration(tuned.budget.seconds)}: no trial came to its end in it; a larger one goes on"
        )
    reasons = "; ".join(f"trial {record.number}: {record.reason or record.state}" for record in tuned.records)
    Console(stderr=True).print(
        f"no trial came to its end ({reasons or tuned.ended})", style="red", markup=False, highlight=False
    )
    raise typer.Exit(EXIT_FAILED)


def _tell(console: Console, tuned: Tuned, path: Path) -> None:
    """The best beside what the search started from, what that figure is worth, and what to do with it."""
    from app.display import comparison_table, write_wrapped

    console.print()
    for line in _how_it_ended(tuned):
        write_wrapped(console, line, INDENT)
    console.print()
    console.print(Padding(comparison_table(_rows(tuned)), (0, 0, 1, INDENT)))
    changes = ", ".join(f"{name} {_shown(before)} -> {_shown(after)}" for name, (before, after) in _changed(tuned))
    best = f"best: {changes or 'the settings that the search started from'}"
    for line in (best, *_of_what(tuned), *_caution(tuned), f"{path}"):
        write_wrapped(console, line, INDENT)
    next_commands(
        console,
        (f"python train.py --config {shlex.quote(str(path))}", "train with it; the first look at the test split"),
        ("valence ui", "the search with its trials, in MLflow"),
    )


def _how_it_ended(tuned: Tuned) -> list[str]:
    from app.wording import duration

    counts = ", ".join(f"{count} {state}" for state, count in sorted(tuned.counts.items()) if state != "cut")
    used = f"{duration(tuned.seconds)} of {duration(tuned.budget.seconds)} used"
    summary = f"{tuned.tried} trial{'' if tuned.tried == 1 else 's'} ({counts}), {used}"
    if tuned.ended == "budget" and not tuned.is_new:
        return [summary, "The budget was used before, so nothing was tried: a larger --budget goes on."]
    if tuned.ended == "trials" and not tuned.is_new:
        return [summary, "That many trials were there before, so nothing was tried: a larger --trials goes on."]
    ends = {
        "budget": "The budget is used: a larger --budget goes on.",
        "trials": "That many trials were asked for: a larger --trials goes on.",
        "interrupted": "Interrupted: the same command goes on.",
    }
    return [summary, ends[tuned.ended]]


def _rows(tuned: Tuned) -> list[dict[str, str]]:
    return [
        {
            "model": f"{title} (trial {record.number})",
            "validation log loss": f"{record.log_loss:.4f}",
            "validation accuracy": f"{record.accuracy:.3f}",
        }
        for title, record in (("start", tuned.start), ("best", tuned.best))
        if record is not None
    ]


def _changed(tuned: Tuned) -> list[tuple[str, tuple[Any, Any]]]:
    return list(tuned.changes().items())


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _of_what(tuned: Tuned) -> list[str]:
    alone = "These are figures of the encoder alone; in the file, the n-grams stand beside it again."
    return [alone] if tuned.encoder_alone else []


def _caution(tuned: Tuned) -> list[str]:
    count = len(tuned.complete)
    if count < 2:
        return ["One complete trial only: nothing was chosen yet."]
    return [
        f"The best of {count} is chosen by these very figures, so they are optimistic: part of its lead is luck on "
        "these validation texts. What it is worth, the test split tells, once."
    ]
