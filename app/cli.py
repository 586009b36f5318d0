"""The command line: its commands, and how they end. Only this file and `app.cli_*` parse arguments, print, or exit.

TensorFlow, Keras and MLflow are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from app import __version__
from app.cli_compare import compare
from app.cli_output import (
    DEFAULT_ARTIFACTS,
    EXIT_FAILED,
    EXIT_REQUEST,
    Artifacts,
    AsJson,
    complain,
    next_commands,
    open_console,
    print_json,
)
from app.cli_predict import predict
from app.cli_pretrain import pretrain
from app.cli_promote import promote
from app.cli_serve import accept_boolean_values, serve
from app.cli_train import demo, train
from app.cli_tune import tune
from app.errors import RequestError
from data.errors import DataError

if TYPE_CHECKING:
    from app.serving.verification import Verification

cli = typer.Typer(
    name="valence",
    help="Train, compare and serve text classifiers with Keras on TensorFlow.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 the request was wrong."""
    try:
        cli(args=accept_boolean_values(sys.argv[1:] if arguments is None else arguments), prog_name="valence")
    except (RequestError, DataError) as error:
        complain(str(error))
        sys.exit(EXIT_REQUEST)
    except (RuntimeError, FloatingPointError, OSError) as error:
        # Those that the work raises by itself; anything else is a fault of this program and shows its traceback.
        complain(f"{type(error).__name__}: {error}")
        sys.exit(EXIT_FAILED)


@cli.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Train, compare and serve text classifiers with Keras on TensorFlow."""
    if show:
        print(f"valence {__version__}")
        raise typer.Exit


cli.command()(train)
cli.command()(demo)
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

    console = open_console(as_json)
    if grpc is not None:
        from app.quiet import import_tensorflow

        import_tensorflow()  # the client's messages are TensorFlow's
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
    console = open_console(as_json=False)
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
        # One reader needs one worker. By default MLflow starts four, and eight more processes for jobs of language
        # models: a page that opens after 18 seconds rather than 10, and 2.8 GB rather than 0.5.
        "--workers",
        "1",
    ]
    defaults = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    sys.stdout.flush()
    # This process becomes MLflow: Ctrl-C and the exit code are its own.
    os.execve(sys.executable, command, {**defaults, **os.environ})


cli.command(context_settings={"token_normalize_func": lambda name: name.replace("-", "_")})(serve)
cli.command()(promote)
cli.command()(predict)


def _print_verification(console: Console, found: Verification, as_json: bool) -> None:
    from app.serving.parity import table

    if as_json:
        print_json(found.to_dict())
    console.print("\n".join(table(found.roads)), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
