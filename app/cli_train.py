"""The commands `train` and `demo`: models on the same data, compared, the best exported."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from app import __version__
from app import cli_options as options
from app.cli_output import (
    DEFAULT_ARTIFACTS,
    EXIT_FAILED,
    Artifacts,
    AsJson,
    Settings,
    complain,
    next_commands,
    open_console,
    print_json,
)
from app.errors import RequestError

if TYPE_CHECKING:
    from app.config import RunConfig
    from app.display import TerminalReporter
    from app.experiment import Outcome
    from app.gates import Gates
    from app.prediction import Answer

QUICK_ROWS = 20_000  # of training, up to which the report after `train` looks at them too
DEMO_TEXTS = ["A small gem of a movie that defies classification.", "By the end, I was looking for the exit."]


def train(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(help="linear, lstm, transformer (all three where none is named), cnn, gru, performer, fnet."),
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
    init: options.Init = None,
    vectors: options.Vectors = None,
    config: options.Config = None,
    settings: Settings = None,
    seed: options.Seed = None,
    seeds: Annotated[int | None, typer.Option(help="Train each model this often, with --seed, the next, ...")] = None,
    deterministic: options.Deterministic = False,
    long: options.Long = None,
    class_weights: options.ClassWeights = None,
    gates: Annotated[
        Path | None, typer.Option(help="TOML file of what the best has to hold against the champion until now.")
    ] = None,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    as_json: AsJson = False,
) -> None:
    """Train models on the same data, compare them, export the best."""
    console = open_console(as_json)
    limits = _gates(gates)
    _greet(console)
    configs = _resolve(models or [], config, options.as_overrides(context.params), artifacts)
    outcome = _run(configs, artifacts, _reporter(console), limits)
    if as_json:
        print_json(outcome.to_dict())
    next_commands(
        console,
        ("python serve.py", "serve the champion; the REST API of TensorFlow Serving"),
        (f'valence predict "{DEMO_TEXTS[0]}"', "label and probabilities"),
        ("valence ui", "the runs, side by side, in MLflow"),
    )
    _exit_if_any_failed(outcome)


def demo(settings: Settings = None, artifacts: Artifacts = DEFAULT_ARTIFACTS, as_json: AsJson = False) -> None:
    """Train three models on the embedded reviews, compare, export, serve, predict."""
    console = open_console(as_json)
    _greet(console)
    reporter = _reporter(console)
    outcome = _run(_resolve([], None, settings or [], artifacts), artifacts, reporter)
    answers = _serve_once(outcome, artifacts, reporter)
    if as_json:
        print_json({**outcome.to_dict(), "served": answers})
    next_commands(
        console,
        ("valence ui", "the runs, side by side, in MLflow"),
        ("python serve.py", "the same server, kept running"),
        (f'valence predict "{DEMO_TEXTS[0]}"', "label and probabilities, without a server"),
        (
            "python train.py lstm transformer --data reviews.csv --text-column review --label-column stars",
            "your data",
        ),
    )
    _exit_if_any_failed(outcome)


def _resolve(models: Sequence[str], file: Path | None, overrides: Sequence[str], artifacts: Path) -> list[RunConfig]:
    """Return one configuration a model; those named, or the one of the file, or the three defaults."""
    from app.quiet import import_tensorflow

    import_tensorflow()
    from app.config import read_toml, resolve_configs

    configs = resolve_configs(models, read_toml(file) if file else {}, overrides, {"cache": artifacts / "cache"})
    from app.pretrained_runs import locate  # imports MLflow, for which a wrong setting need not wait
    from app.tracking import Tracker

    return locate(configs, lambda: Tracker(artifacts))


def _gates(file: Path | None) -> Gates | None:
    """Read them before TensorFlow takes its seconds: a wrong name in the file is told at once."""
    if file is None:
        return None
    from app.gates import read_gates

    return read_gates(file)


def _run(
    configs: Sequence[RunConfig], artifacts: Path, reporter: TerminalReporter, gates: Gates | None = None
) -> Outcome:
    from app.experiment import run_experiment

    try:
        # MLflow prints to standard output, which belongs to --json.
        with contextlib.redirect_stdout(sys.stderr):
            outcome = run_experiment(configs, artifacts, reporter, gates)
            if len(outcome.candidates) > 1:
                _report(outcome, artifacts, reporter)
            return outcome
    finally:
        reporter.close()


def _report(outcome: Outcome, artifacts: Path, reporter: TerminalReporter) -> None:
    """Write the comparison's report; what takes minutes on many texts is left to `valence compare`."""
    from app.comparing import report_of_experiment

    reporter.doing("writing the report")
    thorough = len(outcome.material.splits.train) <= QUICK_ROWS
    made = datetime.now().astimezone().strftime("%-d %B %Y, %H:%M %Z")
    try:
        reporter.reported(report_of_experiment(outcome, artifacts, made, thorough=thorough))
    except (RequestError, RuntimeError, OSError) as error:  # what was trained and exported is told all the same
        complain(f"no report: {error}")


def _exit_if_any_failed(outcome: Outcome) -> None:
    if outcome.failures:
        complain(f"{', '.join(outcome.failures)} failed; compared and exported are the others")
        raise typer.Exit(EXIT_FAILED)


def _serve_once(outcome: Outcome, artifacts: Path, reporter: TerminalReporter) -> list[Answer]:
    """Start the embedded server on the export, ask it two reviews over HTTP, stop it."""
    from app.prediction import predict_texts
    from app.remote import RemoteClassifier
    from app.serving.server import serve_in_background

    name = outcome.material.splits.name
    with serve_in_background(name, artifacts / "exports" / name) as url:
        reporter.stage("Serve", [f"POST {url}/v1/models/{name}:predict"])
        answers = predict_texts(RemoteClassifier(url, name), DEMO_TEXTS)
    for answer in answers:
        reporter.line(f'"{answer["text"]}"   {answer["label"]} {answer["confidence"]:.2f}')
    return answers


def _reporter(console: Console) -> TerminalReporter:
    from app.quiet import import_tensorflow

    import_tensorflow()
    from app.display import TerminalReporter

    return TerminalReporter(console)


def _greet(console: Console) -> None:
    """Say something before TensorFlow takes its seconds to import."""
    versions = {name: importlib.metadata.version(name).rsplit(".", 1)[0] for name in ("tensorflow", "keras")}
    cores = f"{os.cpu_count()} CPU cores"
    console.print(
        f"[bold]Valence {__version__}[/bold]   TensorFlow {versions['tensorflow']}, Keras {versions['keras']}, {cores}",
        highlight=False,
    )
