"""How much of a text an export reads, and what memory that takes: the file `assets.extra/reading.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from app.errors import RequestError
from app.serving.golden import EXTRA_FOLDER

READING_FILE = "reading.json"
# What is run at once may take as much as this many pieces, texts times the pieces of the longest: 128 texts of 256. An
# LSTM keeps seven numbers a unit for each. Where attention keeps one a head for every two pieces: 64 texts of 256.
PIECES_AT_ONCE = 128 * 256
PAIRS_AT_ONCE = 64 * 256**2
BYTES_A_PIECE = 6.25  # English reviews; other languages have fewer, and so smaller slices than they could


@dataclass(frozen=True)
class Reading:
    """How a graph reads a text.

    longest_row: most pieces of a text that are read at all. window: most that the network reads at once, as many
    unless it reads windows. memory: whether what it takes grows with the pieces, "linear", or with their square.
    """

    longest_row: int
    window: int
    memory: str

    def __post_init__(self) -> None:
        if self.memory not in ("linear", "quadratic"):
            raise ValueError(f"memory is {self.memory!r}: expected 'linear' or 'quadratic'")
        for name in ("longest_row", "window"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}: expected a whole number from 1")

    def share(self, size: int) -> float:
        """The part of the memory for one run that a text of `size` bytes takes: so many, one over it, fit into one."""
        pieces = min(size / BYTES_A_PIECE, self.longest_row)
        if self.memory == "linear":
            return pieces / PIECES_AT_ONCE
        return pieces * min(pieces, self.window) / PAIRS_AT_ONCE


UNTOLD = Reading(longest_row=2**20, window=2**20, memory="quadratic")
"""What is taken for true of an export that has no such file: the dearest."""


def read_reading(version_folder: Path) -> Reading:
    """How an export reads, `UNTOLD` where it has no such file. Raises `RequestError` where it cannot be understood."""
    file = version_folder / EXTRA_FOLDER / READING_FILE
    if not file.is_file():
        return UNTOLD
    try:
        return Reading(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RequestError(f"{file} does not tell how the graph reads: {error}") from error
