"""CSV, TSV, JSONL and Parquet files as whole tables in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.sources.streams import stream_rows


@dataclass(frozen=True)
class Table:
    """A file's columns, values as the format types them: in CSV and TSV every value is a str."""

    name: str  # the path as it was given
    columns: dict[str, list[Any]]  # null where a row of JSONL leaves the column out
    places: list[str]  # for each row, where a person finds it: "reviews.csv, line 7"


def read_table(path: Path) -> Table:
    """Read one file, by its suffix.

    Raises:
        DataError: see `stream_rows`.
    """
    rows = list(stream_rows(path))
    names = dict.fromkeys(name for _, row in rows for name in row)
    columns = {name: [row.get(name) for _, row in rows] for name in names}
    return Table(str(path), columns, [place for place, _ in rows])


def read_text(path: Path) -> str:
    """Return the file's text, without a byte order mark; a DataError names the line that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise DataError(f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8.") from error
