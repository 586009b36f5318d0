"""Texts without labels, to learn a vocabulary, vectors or an encoder from, and which of them a labelled task holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from data.errors import DataError
from data.sources import SOURCES, DataConfig, Progress
from data.sources.columns import find_column
from data.sources.imdb import read_unlabelled_reviews
from data.sources.rows import safe_name
from data.sources.streams import READERS, stream_rows
from data.splits import Splits, load_splits, text_key

Hashes = npt.NDArray[np.uint64]
"""Sorted 64-bit hashes of texts, each once: see `text_hashes`."""


class UnlabelledConfig(BaseModel, frozen=True, extra="forbid"):
    """Where the texts come from."""

    source: str = Field("imdb", min_length=1)
    """`imdb`: the 50,000 reviews without a label; another named source: the texts of its training split; or a file."""
    name: str | None = None
    """Of the text, in reports; by default that of the source or the file."""
    archive: Path | None = None
    """imdb: an archive or an unpacked folder that is on this disk."""
    text_column: str | None = None
    """Of a table; `text` by default."""
    cache: Path = Field(Path("artifacts/cache"), exclude=True)


@dataclass(frozen=True)
class UnlabelledTexts:
    """What is learned from: `read` texts were there, `blank` of them held nothing, `left_out` stand in another task."""

    name: str
    origin: str
    texts: tuple[str, ...]
    read: int
    blank: int
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the texts in order."""
        digest = hashlib.sha256()
        for text in self.texts:
            content = text.encode()
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
        return digest.hexdigest()


def load_unlabelled(config: UnlabelledConfig, progress: Progress | None = None) -> UnlabelledTexts:
    """Read the texts that the config names, blank ones dropped.

    Raises:
        DataError: there is no such source or file, it cannot be read, or every text is blank.
    """
    name, origin, read = _read(config, progress)
    texts = tuple(text for text in read if text.strip())
    if not texts:
        raise DataError(f"{origin} holds no text.")
    return UnlabelledTexts(safe_name(config.name or name), origin, texts, len(read), len(read) - len(texts))


def text_hashes(texts: Iterable[str]) -> Hashes:
    """Return hashes of texts; those that count as equal (`data.splits.text_key`) have the same."""
    digests = {hashlib.blake2b(text_key(text).encode(), digest_size=8).digest() for text in texts}
    return np.unique(np.frombuffer(b"".join(digests), dtype="<u8"))


def count_seen(texts: Sequence[str], hashes: Hashes) -> int:
    """Return how many of `texts` have a hash among `hashes`."""
    keys = [hashlib.blake2b(text_key(text).encode(), digest_size=8).digest() for text in texts]
    return int(np.isin(np.frombuffer(b"".join(keys), dtype="<u8"), hashes).sum())


def leave_out(texts: UnlabelledTexts, tasks: Sequence[Splits]) -> UnlabelledTexts:
    """Drop the texts that stand in the validation or test split of a task.

    Raises:
        DataError: nothing is left.
    """
    held_out = {text_key(text) for task in tasks for part in (task.validation, task.test) for text in part.texts}
    kept = tuple(text for text in texts.texts if text_key(text) not in held_out)
    if not kept:
        raise DataError(f"{texts.origin}: every text stands in the validation or test split that is left out.")
    return replace(texts, texts=kept, left_out=texts.left_out + len(texts) - len(kept))


def _read(config: UnlabelledConfig, progress: Progress | None) -> tuple[str, str, list[str]]:
    """Name, origin, and the texts as they were read."""
    path = Path(config.source)
    if config.source in SOURCES:
        _refuse(config, "text_column", *(() if config.source == "imdb" else ("archive",)))
        data = DataConfig(source=config.source, archive=config.archive, cache=config.cache)
        if config.source == "imdb":
            origin, texts = read_unlabelled_reviews(data, progress)
            return "imdb-unsup", origin, texts
        splits = load_splits(data, progress)
        return f"{splits.name}-train", f"the training split of {splits.origin}", list(splits.train.texts)
    _refuse(config, "archive")
    if path.suffix.lower() == ".txt":
        _refuse(config, "text_column")
        return path.stem, path.name, list(_lines(path))
    if path.suffix.lower() not in READERS and path.is_file():
        raise DataError(f"{path}: cannot read it. Files that can be read: .txt (a text a line), {', '.join(READERS)}.")
    if not path.is_file():
        raise DataError(
            f"no such text: {config.source!r}. Sources: {', '.join(sorted(SOURCES))}; or a file: "
            f".txt (a text a line), {', '.join(READERS)}."
        )
    return path.stem, path.name, list(_column(path, config.text_column or "text"))


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise DataError(
                    f"{path}, line {number}: not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8."
                ) from error


def _column(path: Path, name: str) -> Iterator[str]:
    """The texts of a table; a row of JSONL that leaves the column out, or a null, is blank."""
    column = None
    for place, row in stream_rows(path):
        if column is None:
            column = find_column(str(path), row, name, "text")
        value = row.get(column)
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{place}: column {column!r} holds {value!r} ({type(value).__name__}) where a text is expected. "
                "Name the column with the texts with --text-column."
            )
        yield value or ""


def _refuse(config: UnlabelledConfig, *fields: str) -> None:
    for field in fields:
        if getattr(config, field) is not None:
            raise DataError(f"--{field.replace('_', '-')} means nothing for the text {config.source!r}: leave it out.")
