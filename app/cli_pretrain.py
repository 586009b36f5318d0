"""The command `pretrain`: learn vectors or an encoder from texts without labels."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from app.cli_output import PLAIN_WIDTH, next_commands
from app.errors import RequestError

if TYPE_CHECKING:
    from app.display import TerminalReporter
    from app.language_fitting import StepReport
    from app.pretraining import Outcome
    from app.pretraining_config import PretrainingConfig
    from data.sources import DataConfig

MINUTES_OF = {"s": 1 / 60, "m": 1.0, "h": 60.0}


def pretrain(
    kind: Annotated[str, typer.Argument(help="vectors, lstm, transformer, or a model you added.")],
    text: Annotated[
        Path | None, typer.Option(help="File of texts: .txt with one a line, or CSV/TSV/JSONL/Parquet.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Instead of a file: imdb, its reviews without a label, or another source.")
    ] = None,
    archive: Annotated[Path | None, typer.Option(help="imdb: the archive or unpacked folder to read.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the texts, in a table.")] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="Labelled data, or a TOML file with its [data], whose validation and test texts are left out; "
            "may be repeated."
        ),
    ] = None,
    init: Annotated[str | None, typer.Option(help="Run of valence pretrain to start from, by id or name.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the texts.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps; not for vectors.")] = None,
    budget: Annotated[str | None, typer.Option(help="End after that time of training: 90s, 20m, 2h.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default kind and text.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, e.g. model.num_layers=2.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and what is hidden.")] = None,
    artifacts: Annotated[
        Path, typer.Option(envvar="VALENCE_ARTIFACTS", help="Folder of runs, exports and caches.")
    ] = Path("artifacts"),
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output, the rest on standard error.")
    ] = False,
) -> None:
    """Learn from texts without labels what train --init starts from; started again, go on where it stopped."""
    stream = sys.stderr if as_json else sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else PLAIN_WIDTH)
    if text is not None and data is not None:
        raise RequestError("--text and --data both name the texts: give one of the two")
    named: dict[str, Any] = {
        "text": {"source": str(text or data or "imdb"), "archive": archive, "text_column": text_column},
        "language" if kind != "vectors" else "vectors": {"epochs": epochs, "steps": steps},
        "budget_minutes": None if budget is None else parse_budget(budget),
        "name": name,
        "seed": seed,
    }
    if kind == "vectors" and steps is not None:
        raise RequestError("--steps is for encoders; vectors are bounded by --epochs or --budget")
    console.print("loading ...", highlight=False)
    config = _resolve(kind, settings or [], named, leave_out or [], init, artifacts)
    outcome = _run(config, artifacts, console)
    if as_json:
        print(json.dumps(outcome.to_dict(), ensure_ascii=False, indent=2))
    _tell(console, outcome)
    model = "lstm transformer" if kind == "vectors" else kind
    next_commands(
        console,
        (f"python train.py {model} --init {outcome.run_id}", "start from it"),
        ("valence ui", "the run and its losses, in MLflow"),
    )


def parse_budget(text: str) -> float:
    """Read `90s`, `20m` or `1.5h` as minutes; RequestError where it is something else, or no time at all."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", text)
    minutes = float(found[1]) * MINUTES_OF[found[2]] if found else 0.0
    if not minutes:
        raise RequestError(f"--budget {text}: a number above 0 with s, m or h behind it: 90s, 20m, 2h")
    return minutes


def _resolve(
    kind: str,
    settings: Sequence[str],
    named: dict[str, Any],
    leave_out: Sequence[str],
    init: str | None,
    artifacts: Path,
) -> PretrainingConfig:
    from app.quiet import import_tensorflow

    import_tensorflow()
    from app.initial_weights import InitConfig
    from app.pretrained_runs import locate_init
    from app.pretraining_config import resolve_pretraining
    from app.tracking import Tracker

    given: dict[str, Any] = {}
    for key, value in named.items():
        part = {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value
        given |= {key: part} if part not in (None, {}) else {}
    cache = artifacts / "cache"
    given["text"]["cache"] = cache
    archive = given["text"].get("archive")  # that of the task to leave out too
    if given["text"]["source"] != "imdb" and "imdb" in leave_out:
        given["text"].pop("archive", None)  # it is that task's alone
    config = resolve_pretraining(kind, settings, given, [_task(one, archive, cache) for one in leave_out])
    if init is None:
        return config
    located = locate_init(InitConfig(runs=(init,)), lambda: Tracker(artifacts))
    return config.model_copy(update={"init": located})


def _task(reference: str, archive: Path | None, cache: Path) -> DataConfig:
    """The labelled data that is meant: a source or a file, or the section `data` of a TOML file."""
    from pydantic import ValidationError

    from app.config import explain, read_toml
    from data.sources import DataConfig

    settings: Any = {"source": reference}
    if reference.endswith(".toml"):
        settings = read_toml(Path(reference)).get("data", {})
    elif reference == "imdb" and archive is not None:
        settings["archive"] = archive
    try:
        return DataConfig.model_validate({**settings, "cache": cache})
    except (ValidationError, TypeError) as error:
        why = explain(error, DataConfig, "data") if isinstance(error, ValidationError) else f"[data] is {settings!r}"
        raise RequestError(f"--leave-out {reference}: {why}") from None


def _run(config: PretrainingConfig, artifacts: Path, console: Console) -> Outcome:
    from app.display import TerminalReporter
    from app.pretraining import pretrain as carry_out

    terminal = TerminalReporter(console)
    try:
        # MLflow prints to standard output, which belongs to --json.
        with contextlib.redirect_stdout(sys.stderr):
            return carry_out(config, artifacts, _Teller(terminal))
    finally:
        terminal.close()


class _Teller:
    """Tells a pretraining with what tells a training: a bar on a terminal, a line at every checkpoint."""

    def __init__(self, terminal: TerminalReporter) -> None:
        self._terminal = terminal
        self.doing, self.downloaded, self.line = terminal.doing, terminal.downloaded, terminal.line

    def step(self, kind: str, report: StepReport) -> None:
        from app.fitting import EpochReport
        from app.wording import duration

        self._terminal.epoch(EpochReport(kind, 1, 1, report.step, report.steps, report.loss, report.elapsed))
        if report.held_out_loss is not None:
            self.line(
                f"step {report.step:,} of {report.steps:,}   loss {report.loss:.3f}   held-out loss "
                f"{report.held_out_loss:.3f}   {duration(report.elapsed)}"
            )


def _tell(console: Console, outcome: Outcome) -> None:
    done = "was finished before, nothing was done now" if outcome.again else "finished"
    console.print(
        f"\n{outcome.name}   {done}: {outcome.facts}\n{outcome.run_id}   run in MLflow, experiment pretraining",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
