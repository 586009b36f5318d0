"""The commands `train` and `demo`: models on the same data, compared, the best exported."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from app import __version__
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
    models: Annotated[
        list[str] | None,
        typer.Argument(help="linear, lstm, transformer (all three where none is named), cnn, gru, performer, fnet."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A source (rotten-tomatoes, imdb), a CSV/TSV/JSONL/Parquet file, or a folder of classes."),
    ] = None,
    validation_data: Annotated[Path | None, typer.Option(help="File of the validation split.")] = None,
    test_data: Annotated[Path | None, typer.Option(help="File of the test split.")] = None,
    archive: Annotated[Path | None, typer.Option(help="imdb: the archive or unpacked folder to read.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Column that names each row's split.")] = None,
    group_column: Annotated[str | None, typer.Option(help="Column whose values stay on one side of a split.")] = None,
    slice_column: Annotated[
        list[str] | None, typer.Option(help="Column to look at parts of the test split by; may be repeated.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the experiment and its exports; the data's by default.")
    ] = None,
    init: Annotated[list[str] | None, typer.Option(help="Run of valence pretrain to start from; repeatable.")] = None,
    vectors: Annotated[Path | None, typer.Option(help="Word vectors to start from: word2vec, GloVe, .npy.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings, e.g. a run's config.toml.")] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, dropout and batch order.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Train each model this often, with --seed, the next, ...")] = None,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Repeat bit for bit; slower.")] = False,
    long: Annotated[str | None, typer.Option(help="Long texts: truncate; or window, which reads them whole.")] = None,
    class_weights: Annotated[str | None, typer.Option(help="balanced: rare classes weigh more; or none.")] = None,
    gates: Annotated[
        Path | None, typer.Option(help="TOML file of what the best has to hold against the champion until now.")
    ] = None,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    as_json: AsJson = False,
) -> None:
    """Train models on the same data, compare them, export the best."""
    console = open_console(as_json)
    named = {
        "data.source": data,
        "data.name": name,
        "data.validation": validation_data,
        "data.test": test_data,
        "data.archive": archive,
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.split_column": split_column,
        "data.group_column": group_column,
        "data.slice_columns": slice_column or None,
        "pipeline.long": long,
        "fit.class_weights": class_weights,
        "init.runs": init or None,
        "init.vectors": vectors,
        "seed": seed,
        "seeds": seeds,
        "deterministic": deterministic or None,
    }
    limits = _gates(gates)
    _greet(console)
    configs = _resolve(models or [], config, [*(settings or []), *as_settings(named)], artifacts)
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


def as_settings(named: dict[str, Any]) -> list[str]:
    """Write options as `--set` would, to come after those given with it: a named option wins."""
    values = {key: str(value) if isinstance(value, Path) else value for key, value in named.items()}
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value is not None]


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
