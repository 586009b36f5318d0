"""The command line: the only file that parses arguments, prints, or exits.

TensorFlow, Keras and MLflow are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from app import __version__
from app.cli_compare import compare
from app.cli_predict import predict
from app.cli_pretrain import pretrain
from app.cli_promote import promote
from app.cli_serve import accept_boolean_values, serve
from app.cli_tune import tune
from app.errors import RequestError
from data.errors import DataError

if TYPE_CHECKING:
    from app.config import RunConfig
    from app.display import TerminalReporter
    from app.experiment import Outcome
    from app.gates import Gates
    from app.prediction import Answer
    from app.serving.verification import Verification

EXIT_FAILED, EXIT_REQUEST = 1, 2
PLAIN_WIDTH = 100  # of lines when nobody says how wide the window is
QUICK_ROWS = 20_000  # of training, up to which the report after `train` looks at them too
DEMO_TEXTS = ["A small gem of a movie that defies classification.", "By the end, I was looking for the exit."]

cli = typer.Typer(
    name="valence",
    help="Train, compare and serve text classifiers with Keras on TensorFlow.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Artifacts = Annotated[Path, typer.Option(envvar="VALENCE_ARTIFACTS", help="Folder of runs, exports and caches.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, the rest on standard error.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, e.g. model.hidden_dim=64.")]
DEFAULT_ARTIFACTS = Path("artifacts")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 the request was wrong."""
    try:
        cli(args=accept_boolean_values(sys.argv[1:] if arguments is None else arguments), prog_name="valence")
    except (RequestError, DataError) as error:
        _complain(str(error))
        sys.exit(EXIT_REQUEST)
    except (RuntimeError, FloatingPointError, OSError) as error:
        # Those that the work raises by itself; anything else is a fault of this program and shows its traceback.
        _complain(f"{type(error).__name__}: {error}")
        sys.exit(EXIT_FAILED)


@cli.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Train, compare and serve text classifiers with Keras on TensorFlow."""
    if show:
        print(f"valence {__version__}")
        raise typer.Exit


@cli.command()
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
    console = _console(as_json)
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
        _print_json(outcome.to_dict())
    next_commands(
        console,
        ("python serve.py", "serve the champion; the REST API of TensorFlow Serving"),
        (f'valence predict "{DEMO_TEXTS[0]}"', "label and probabilities"),
        ("valence ui", "the runs, side by side, in MLflow"),
    )
    _exit_if_any_failed(outcome)


@cli.command()
def demo(settings: Settings = None, artifacts: Artifacts = DEFAULT_ARTIFACTS, as_json: AsJson = False) -> None:
    """Train three models on the embedded reviews, compare, export, serve, predict."""
    console = _console(as_json)
    _greet(console)
    reporter = _reporter(console)
    outcome = _run(_resolve([], None, settings or [], artifacts), artifacts, reporter)
    answers = _serve_once(outcome, artifacts, reporter)
    if as_json:
        _print_json({**outcome.to_dict(), "served": answers})
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


cli.command()(pretrain)
cli.command()(tune)
cli.command()(compare)


@cli.command()
def verify(
    version_folder: Annotated[Path, typer.Argument(help="<exports>/<name>/<version>")],
    url: Annotated[
        str | None, typer.Option(help="Ask a running server too: http://host:port, or .../v1/models/NAME/versions/N.")
    ] = None,
    grpc: Annotated[str | None, typer.Option(help="That server's gRPC address, host:port.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that an export answers as the classifier that was evaluated, over every road there is."""
    from app.serving.verification import VerificationError
    from app.serving.verification import verify as verify_export

    console = _console(as_json)
    if grpc is not None:
        _import_tensorflow()  # the client's messages are TensorFlow's
    try:
        found = verify_export(version_folder, url, grpc)
    except VerificationError as error:
        if error.verification:
            _print_verification(console, error.verification, as_json)
        raise
    _print_verification(console, found, as_json)
    console.print(
        f"{version_folder}: {found.golden_texts} golden answers equal to {found.largest_difference:.0e}, labels equal; "
        f"signatures {', '.join(found.signatures)}; {found.warmup_records} warm-up records; any device",
        highlight=False,
        soft_wrap=True,
    )
    next_commands(console, (f"python serve.py --model_base_path {version_folder.parent}", "serve it"))


@cli.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """Open MLflow's own UI on the runs."""
    console = _console(as_json=False)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri and uri.startswith(("http://", "https://")):
        console.print(f"the runs are on the tracking server {uri} (MLFLOW_TRACKING_URI): open it in a browser")
        return
    if not uri:
        database = artifacts / "mlflow.db"
        if not database.is_file():
            raise RequestError(f"no runs yet: {database} is not there. Train first: python train.py lstm transformer")
        uri = f"sqlite:///{database.resolve()}"
    # Without its last part MLflow opens the pages for language models, where runs are hard to find.
    page = f"http://{host}:{port}/#/experiments?workflowType=machine_learning"
    console.print(f"MLflow at {page}   runs of {uri}   Ctrl-C ends it", highlight=False, soft_wrap=True)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        uri,
        "--host",
        host,
        "--port",
        str(port),
    ]
    sys.stdout.flush()
    # This process becomes MLflow: Ctrl-C and the exit code are its own.
    os.execve(sys.executable, command, {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ})


cli.command(context_settings={"token_normalize_func": lambda name: name.replace("-", "_")})(serve)
cli.command()(promote)


cli.command()(predict)


def _print_verification(console: Console, found: Verification, as_json: bool) -> None:
    from app.serving.parity import table

    if as_json:
        _print_json(found.to_dict())
    console.print("\n".join(table(found.roads)), markup=False, highlight=False, soft_wrap=True)


def as_settings(named: dict[str, Any]) -> list[str]:
    """Write options as `--set` would, to come after those given with it: a named option wins."""
    values = {key: str(value) if isinstance(value, Path) else value for key, value in named.items()}
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value is not None]


def _resolve(models: Sequence[str], file: Path | None, overrides: Sequence[str], artifacts: Path) -> list[RunConfig]:
    """Return one configuration a model; those named, or the one of the file, or the three defaults."""
    _import_tensorflow()
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
        _complain(f"no report: {error}")


def _exit_if_any_failed(outcome: Outcome) -> None:
    if outcome.failures:
        _complain(f"{', '.join(outcome.failures)} failed; compared and exported are the others")
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
    _import_tensorflow()
    from app.display import TerminalReporter

    return TerminalReporter(console)


def _console(as_json: bool) -> Console:
    # The stream of now: what MLflow prints to standard output later is sent elsewhere, the report is not.
    stream = sys.stderr if as_json else sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else PLAIN_WIDTH)
    handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False, show_level=False)
    logging.getLogger("valence").handlers = [handler]
    return console


def _greet(console: Console) -> None:
    """Say something before TensorFlow takes its seconds to import."""
    versions = {name: importlib.metadata.version(name).rsplit(".", 1)[0] for name in ("tensorflow", "keras")}
    cores = f"{os.cpu_count()} CPU cores"
    console.print(
        f"[bold]Valence {__version__}[/bold]   TensorFlow {versions['tensorflow']}, Keras {versions['keras']}, {cores}",
        highlight=False,
    )


def _import_tensorflow() -> None:
    from app.quiet import import_tensorflow

    import_tensorflow()


def next_commands(console: Console, *commands: tuple[str, str]) -> None:
    """End with what to type next, each line ready to paste."""
    ready = [(_as_typed(command), why) for command, why in commands]
    width = min(40, max(len(command) for command, _ in ready))  # one long command does not push all reasons away
    for row, (command, why) in enumerate(ready):
        start = "\nNext  " if row == 0 else "      "
        console.print(f"{start}{command:<{width}}   # {why}", markup=False, highlight=False, soft_wrap=True)


def _as_typed(command: str) -> str:
    """Write a command as it works in the caller's shell: with the path of the environment that is not activated."""
    program = Path(sys.argv[0])
    if program.name != "valence" or shutil.which("valence"):
        return command
    folder = os.path.relpath(program.parent)
    return f"{folder}/{command}" if command.startswith(("valence ", "python ")) else command


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False))


def _complain(message: str) -> None:
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
