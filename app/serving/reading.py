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
ASCII = bytes(range(128))
SEPARATORS = bytes(code for code in ASCII if not chr(code).isalnum())


@dataclass(frozen=True)
class Reading:
    """How a graph reads a text.

    longest_row: most pieces of a text that are read at all. window: most that the network reads at once, as many
    unless it reads windows. linear_memory: whether what that takes grows with the pieces, and not with their square.
    """

    longest_row: int
    window: int
    linear_memory: bool

    def __post_init__(self) -> None:
        for name in ("longest_row", "window"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}: expected a whole number from 1")
        if type(self.linear_memory) is not bool:
            raise ValueError(f"linear_memory is {self.linear_memory!r}: expected true or false")

    def share(self, pieces: int) -> float:
        """Part of the memory of one run that a text takes; texts whose parts add up to at most 1 are run together."""
        read = min(pieces, self.longest_row)
        return read / PIECES_AT_ONCE if self.linear_memory else read * min(read, self.window) / PAIRS_AT_ONCE


UNTOLD = Reading(longest_row=2**20, window=2**20, linear_memory=False)
"""What is taken for true of an export that has no such file: the dearest."""


def read_reading(version_folder: Path) -> Reading:
    """How an export reads, `UNTOLD` where it has no such file. Raises `RequestError` where it cannot be understood."""
    file = version_folder / EXTRA_FOLDER / READING_FILE
    if not file.is_file():
        return UNTOLD
    try:
        return Reading(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(f"{file} does not tell how the graph reads: {error}") from error


def roughly_pieces(text: bytes) -> int:
    """Guess the number of pieces of a text in UTF-8, without its tokenizer; rather too many than too few.

    Counts ASCII characters that are no letter or digit, a third of the bytes beyond ASCII, since a Chinese character
    has three, and a sixteenth of all bytes, for long words and texts without any separator.
    """
    separators = len(text) - len(text.translate(None, SEPARATORS))
    return separators + len(text.translate(None, ASCII)) // 3 + len(text) // 16
