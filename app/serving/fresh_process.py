"""Ask a module of this package something in a process of its own, whose end is told whatever it is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 1800


class ProcessError(RuntimeError):
    """The process gave no answer; the message says how it ended."""


def answer_of(module: str, *arguments: str) -> Any:
    """What `python -m module arguments` writes to standard output as its last line, read as JSON.

    The process sees no GPU: an export has to run on a CPU too, and this process may hold all of the GPU's memory.
    Raises `ProcessError` with the exit code, and the signal's name where one ended it.
    """
    environment = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONIOENCODING": "utf-8"}
    try:
        completed = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **environment},
            cwd=Path(__file__).parents[2],
            timeout=PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ProcessError(f"no answer within {PATIENCE_SECONDS} seconds") from error
    if completed.returncode != 0:
        raise ProcessError(f"{_end(completed.returncode)}: {_last_words(completed.stderr)}")
    try:
        return json.loads(_last_line(completed.stdout))
    except json.JSONDecodeError as error:
        raise ProcessError(f"exit code 0 without an answer: {_last_words(completed.stderr)}") from error


def _end(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    try:
        return f"exit code {code}, ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"exit code {code}, ended by signal {-code}"


def _last_words(errors: str) -> str:
    """The last line; of a failed check in C++, the line above its stack trace."""
    fatal = re.findall(r"^F\d{4} .*?\] (.+)$", errors, re.MULTILINE)
    return fatal[-1] if fatal else _last_line(errors)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]
