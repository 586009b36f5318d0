"""What a person sees while an experiment goes on: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table

from app import wording
from app.comparison import Comparison
from app.experiment import Outcome
from app.fitting import EpochReport, History
from app.training import Material

INDENT = 2


class TerminalReporter:
    """Tells an experiment as it goes: data, training, test, export. See `app.experiment.Reporter`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = 0
        self._bar: TrainingBar | None = None
        self._status: Status | None = None
        self._tenth = -1

    def doing(self, what: str) -> None:
        """Tell what takes a while; on a terminal it gives way to what comes next."""
        if not self._console.is_terminal:
            self.line(f"{what} ...")
            return
        self._quiet()
        self._status = self._console.status(f"{what} ...")
        self._status.start()

    def downloaded(self, done: int, total: int | None) -> None:
        """Tell how much of a download has come, every tenth of it."""
        tenth = 10 * done // total if total else done // 10_000_000
        if tenth != self._tenth:
            self._tenth = tenth
            of = f" of {total / 1e6:,.0f}" if total else ""
            self.doing(f"downloading: {done / 1e6:,.0f}{of} MB")

    def close(self) -> None:
        """Take away whatever still moves."""
        self._quiet()

    def prepared(self, material: Material) -> None:
        """Show the data card."""
        self._quiet()
        self.stage("Data", material.card.lines())
        self.stage("Train")

    def epoch(self, report: EpochReport) -> None:
        """Move the model's bar; without a terminal, write a line at each epoch's end."""
        if self._console.is_terminal:
            self._bar = self._bar or TrainingBar(self._console)
            self._bar.move(report)
        elif report.validation_loss is not None:
            self.line(
                f"{report.model_name:<12} epoch {report.epoch:>2} of {report.epochs}   loss {report.loss:.3f}   "
                f"validation loss {report.validation_loss:.3f}   {wording.duration(report.elapsed)}"
            )

    def fitted(self, name: str, history: History) -> None:
        """Put one line that stays in place of the bar."""
        self._quiet()
        self.line(
            f"{name:<12} {wording.duration(history.seconds)}   {history.ended}; best: epoch {history.best_epoch} "
            f"of {len(history.loss)}, validation loss {min(history.validation_loss):.3f}"
        )

    def failed(self, name: str, reason: str) -> None:
        """Tell that one model of several came to nothing."""
        self._quiet()
        self.line(f"{name:<12} failed: {reason}")

    def compared(self, material: Material, comparison: Comparison, notes: Sequence[str]) -> None:
        """Show the table, the verdict and how far the seeds are apart."""
        self.stage("Test", [f"{len(material.splits.test):,} texts, 95% intervals"])
        self._console.print(Padding(comparison_table(comparison.table()), (0, 0, 1, INDENT)))
        for sentence in (*comparison.sentences, *notes):
            self.line(sentence)

    def exported(self, outcome: Outcome) -> None:
        """Show which model was the best, whether it took the champion's place, and how far it was checked."""
        self._quiet()
        self.stage("Export", [*_why_best(outcome), *_what_is_served(outcome)])

    def reported(self, page: Path) -> None:
        """Tell where the comparison's report is."""
        self._quiet()
        self.line(f"report: {page}")

    def _quiet(self) -> None:
        if self._bar is not None:
            self._bar.remove()
            self._bar = None
        if self._status is not None:
            self._status.stop()
            self._status = None

    def stage(self, title: str, lines: Iterable[str] = ()) -> None:
        """Start a numbered stage."""
        self._stage += 1
        self._console.print(f"\n[bold]{self._stage} {title}[/bold]", highlight=False)
        for line in lines:
            self.line(line)

    def line(self, text: str) -> None:
        """Write a line below the stage's title, wrapped where the window ends."""
        write_wrapped(self._console, text, INDENT)


def _why_best(outcome: Outcome) -> list[str]:
    """Say by what the model was chosen, where there were several, and by what the seed."""
    champion, run = outcome.best, outcome.best.run
    seeds = len(champion.seeds)
    over = f", on average over {seeds} seeds" if seeds > 1 else ""
    lines = []
    if len(outcome.candidates) > 1:
        loss = f"{champion.validation_log_loss:.3f}"
        lines.append(f"best: {run.name}, the lowest calibrated log loss on validation ({loss}{over})")
    if seeds > 1:
        lines.append(f"exported: seed {run.config.seed}, the lowest of its seeds ({run.validation_log_loss:.3f})")
    return lines


def _what_is_served(outcome: Outcome) -> list[str]:
    """Say where the new champion is, or why the champion until now stays."""
    promotion, checked = outcome.promotion, outcome.best.verification
    if promotion.export is None:
        return [
            f"the champion stays {promotion.champion}; the gates refused {outcome.best.run.name}:",
            *(f"{gate.name}: {gate.figure}; {gate.reason}" for gate in promotion.refused_by),
            f"with other limits: valence promote {promotion.version.run_id} --gates FILE",
        ]
    megabytes = sum(file.stat().st_size for file in promotion.export.rglob("*") if file.is_file()) / 1e6
    lines = [
        f"{promotion.export}   {megabytes:.1f} MB; {checked.golden_texts} golden answers equal to "
        f"{checked.largest_difference:.0e} in a fresh process"
    ]
    if promotion.gates:
        lines.append(f"champion instead of {promotion.champion}: every gate passed. Back: valence promote --rollback")
    return lines


class TrainingBar:
    """A bar for the model that is training; it goes when training ends."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", state="")
        self._validation = ""
        self._progress.start()

    def move(self, report: EpochReport) -> None:
        """Show where training stands."""
        if report.validation_loss is not None:
            self._validation = f"  validation loss {report.validation_loss:.3f}"
        state = f"epoch {report.epoch}/{report.epochs}  step {report.step}/{report.steps}  loss {report.loss:.3f}"
        self._progress.update(
            self._task,
            description=report.model_name,
            total=report.epochs * report.steps,
            completed=(report.epoch - 1) * report.steps + report.step,
            state=state + self._validation,
        )

    def remove(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def comparison_table(rows: list[dict[str, str]]) -> Table:
    """Render the rows of a comparison, one a model; it folds where the window is narrow."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in rows[0]:
        justify: Literal["left", "right"] = "left" if heading in ("model", "accuracy") else "right"
        table.add_column(heading, justify=justify, no_wrap=heading == "accuracy", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    return table


def write_wrapped(console: Console, text: str, indent: int = 0) -> None:
    """Write a paragraph, continued at the same indent; never cut, no markup read into it."""
    margin = " " * indent
    wrapped = textwrap.fill(
        text,
        console.width,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    console.print(wrapped, markup=False, highlight=False, soft_wrap=True)
