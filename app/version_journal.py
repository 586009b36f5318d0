"""One promotion at a time, and what a promotion that broke off had begun: a locked file beside the versions."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import BaseModel

from app.errors import RequestError


class Intent(BaseModel, frozen=True, extra="forbid"):
    """What a promotion is about to do: publish `version` as the folder `export`, `previous` being that alias before."""

    version: str
    export: str
    previous: str | None


class Journal:
    """The open, locked journal of one model. Empty: no promotion broke off."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def read(self) -> Intent | None:
        """What the last promotion had begun and not ended."""
        self._file.seek(0)
        text = self._file.read()
        return Intent.model_validate_json(text) if text else None

    def write(self, intent: Intent | None) -> None:
        """Note what is about to be done, on disk before it is done; None: it is done, or undone."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(intent.model_dump_json() if intent else "")
        self._file.flush()
        os.fsync(self._file.fileno())


@contextlib.contextmanager
def open_journal(base: Path, *, wait: bool = False) -> Iterator[Journal]:
    """Hold the journal of the model whose versions are below `base`, made if need be.

    `wait` until another process on this machine that is promoting this model has ended.

    Raises:
        RequestError: there is one, and it is not waited for.
    """
    base.mkdir(parents=True, exist_ok=True)
    # Beside the folder of versions, where servers do not look.
    with (base.parent / f".{base.name}.promotion").open("a+", encoding="utf-8") as file:
        try:
            # Gone with the process, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"another promotion of {base.name} is under way; try again when it has ended") from None
        yield Journal(file)
