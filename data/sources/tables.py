"""CSV, TSV, JSONL and Parquet files, read strictly: whatever is wrong is an error that names its place."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from data.errors import DataError


@dataclass(frozen=True)
class Table:
    """A file's columns, values as the format types them: in CSV and TSV every value is a str."""

    name: str  # the path as it was given
    columns: dict[str, list[Any]]
    places: list[str]  # for each row, where a person finds it: "reviews.csv, line 7"


def read_table(path: Path) -> Table:
    """Read one file, by its suffix.

    Raises:
        DataError: unknown suffix; no such file, an empty one, not UTF-8; a broken line or archive.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot read a {path.suffix or 'file without a suffix'}. {known_suffixes()}")
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    table = reader(path)
    if not table.places:
        raise DataError(f"{path} has no rows.")
    return table


def known_suffixes() -> str:
    """Return the sentence that lists what can be read."""
    return f"Files that can be read: {', '.join(READERS)} (JSON with one object on each line)."


def read_text(path: Path) -> str:
    """Return the file's text, without a byte order mark; a DataError names the line that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise DataError(f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8.") from error


def _read_csv(path: Path) -> Table:
    return _read_delimited(path, ",")


def _read_tsv(path: Path) -> Table:
    return _read_delimited(path, "\t")


def _read_delimited(path: Path, delimiter: str) -> Table:
    """Quoted as RFC 4180 says; the first line names the columns; empty lines are skipped."""
    # The csv module refuses fields above 128 KiB unless told otherwise, and a text may well be longer.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    records: list[list[str]] = []
    places: list[str] = []
    first_line = 1  # of the record being read: a quoted field may go over several lines
    try:
        for record in reader:
            if record:
                records.append(record)
                places.append(f"{path}, line {first_line}")
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {first_line}: broken quotes or fields ({error}).") from error
    return _table_of_records(path, records, places)


def _table_of_records(path: Path, records: list[list[str]], places: list[str]) -> Table:
    if not records:
        raise DataError(f"{path} is empty.")
    header, rows = records[0], records[1:]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{places[0]}: column {repeated[0]!r} stands there more than once.")
    for row, place in zip(rows, places[1:], strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{place}: {len(row)} fields where the header has {len(header)} ({', '.join(header)}). "
                "A field that holds the delimiter or a line break must be in double quotes."
            )
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return Table(str(path), columns, places[1:])


def _read_jsonl(path: Path) -> Table:
    """One JSON object a line; a key that a line lacks is null there; empty lines are skipped."""
    records: list[dict[str, Any]] = []
    places: list[str] = []
    # Not splitlines(): a JSON string may hold U+2028 and the like as they are.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            records.append(_json_object(line, place))
            places.append(place)
    names = dict.fromkeys(name for record in records for name in record)
    return Table(str(path), {name: [record.get(name) for record in records] for name in names}, places)


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error.msg}, column {error.colno}).") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        raise DataError(f"{place}: JSON that cannot be read ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f'{place}: {line.strip()[:40]} is not an object like {{"text": ..., "label": ...}}.')
    return value


def _read_parquet(path: Path) -> Table:
    try:
        content = pyarrow.parquet.read_table(path)
        # Python values, not pandas: there an integer column with one null would turn into floats.
        columns = {name: content.column(name).to_pylist() for name in content.column_names}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({error}).") from error
    return Table(str(path), columns, [f"{path}, row {i + 1}" for i in range(content.num_rows)])


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
