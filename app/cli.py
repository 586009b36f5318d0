"""The command line: the only file that parses arguments, prints, or exits.

TensorFlow, Keras and MLflow are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from app import __version__
from app.errors import RequestError
from data.errors import DataError

if TYPE_CHECKING:
    from app.config import RunConfig
    from app.experiment import Outcome

EXIT_FAILED, EXIT_REQUEST, EXIT_INTERRUPTED = 1, 2, 130
DEMO_TEXTS = ("A small gem of a movie that defies classification.", "By the end, I was looking for the exit.")
DEMO_MODELS = ("linear", "lstm", "transformer")

cli = typer.Typer(
    name="valence",
    help="Train, compare and serve text classifiers with Keras on TensorFlow.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Artifacts = Annotated[
    Path, typer.Option(envvar="VALENCE_ARTIFACTS", help="Folder of runs, exports and caches.", file_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, all else on standard error.")]
"""
"""


def main() -> None:
    """Run the command line; a wrong request is one message and exit code 2, never a traceback."""
    try:
        cli(standalone_mode=False)
    except Exception:
        pass
