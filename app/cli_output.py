"""What the commands print with: the console, JSON, the next command, a complaint; and the options they share."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

EXIT_FAILED, EXIT_REQUEST = 1, 2
PLAIN_WIDTH = 100  # of lines when nobody says how wide the window is

Artifacts = Annotated[Path, typer.Option(envvar="VALENCE_ARTIFACTS", help="Folder of runs, exports and caches.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, the rest on standard error.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, e.g. model.hidden_dim=64.")]
DEFAULT_ARTIFACTS = Path("artifacts")


def open_console(as_json: bool) -> Console:
    """Return what a command prints on: standard output, or standard error where that belongs to `--json`."""
    # The stream of now: what MLflow prints to standard output later is sent elsewhere, the report is not.
    stream = sys.stderr if as_json else sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else PLAIN_WIDTH)
    handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False, show_level=False)
    logging.getLogger("valence").handlers = [handler]
    return console


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


def print_json(content: dict[str, Any]) -> None:
    """Print what a program reads, on standard output."""
    print(json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False))


def complain(message: str) -> None:
    """Print an error in red, on standard error."""
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
