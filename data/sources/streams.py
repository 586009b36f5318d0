"""CSV, TSV, JSONL and Parquet files row by row, read strictly: an error names the place of what is wrong."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from data.errors import DataError

Row = dict[str, Any]
"""Column -> value as the format types it: a str in CSV and TSV. In JSONL a row may leave columns out."""

PlacedRow = tuple[str, Row]
"""Where a person finds the row ("reviews.csv, line 7"), and the row."""

BATCH_ROWS = 1024  # rows of a Parquet file that are in memory at once


def stream_rows(path: Path) -> Iterator[PlacedRow]:
    """Read one file, by its suffix, without ever holding the whole of it.

    Raises:
        DataError: unknown suffix; no such file, an empty one, not UTF-8; a broken line or archive; no rows.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot read a {path.suffix or 'file without a suffix'}. {known_suffixes()}")
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    row = None
    for row in reader(path):
        yield row
    if row is None:
        raise DataError(f"{path} has no rows.")


def stream_chunks(path: Path, size: int) -> Iterator[list[PlacedRow]]:
    """Read like `stream_rows`, `size` rows at a time; the last chunk may be shorter."""
    rows = stream_rows(path)
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def known_suffixes() -> str:
    """Return the sentence that lists what can be read."""
    return f"Files that can be read: {', '.join(READERS)} (JSON with one object on each line)."


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines with their ends, split at line feeds only, without a byte order mark."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                raise DataError(
                    f"{path}, line {number}: not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8."
                ) from error


def _csv_rows(path: Path) -> Iterator[PlacedRow]:
    return _delimited_rows(path, ",")


def _tsv_rows(path: Path) -> Iterator[PlacedRow]:
    return _delimited_rows(path, "\t")


def _delimited_rows(path: Path, delimiter: str) -> Iterator[PlacedRow]:
    """Pair every record with the names in the first one."""
    header: list[str] | None = None
    for place, record in _records(path, delimiter):
        if header is None:
            header = record
            _refuse_repeated(header, place)
        elif len(record) == len(header):
            yield place, dict(zip(header, record, strict=True))
        else:
            raise DataError(
                f"{place}: {len(record)} fields where the header has {len(header)} ({', '.join(header)}). "
                "A field that holds the delimiter or a line break must be in double quotes."
            )
    if header is None:
        raise DataError(f"{path} is empty.")


def _records(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Read fields, quoted as RFC 4180 says; empty lines are skipped."""
    # The csv module refuses fields above 128 KiB unless told otherwise, and a text may well be longer.
    csv.field_size_limit(2**31 - 1)
    # Outside of quotes a lone carriage return ends a record too, as old spreadsheets wrote it.
    lines = itertools.chain.from_iterable(_cut_at_returns(line) for line in _lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    first_line = 1  # of the record being read: a quoted field may go over several lines
    try:
        for record in reader:
            if record:
                yield f"{path}, line {first_line}", record
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {first_line}: broken quotes or fields ({error}).") from error


def _cut_at_returns(line: str) -> Iterable[str]:
    return io.StringIO(line, newline="") if "\r" in line else (line,)


def _refuse_repeated(names: list[str], place: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{place}: column {repeated[0]!r} stands there more than once.")


def _jsonl_rows(path: Path) -> Iterator[PlacedRow]:
    """One JSON object a line; empty lines are skipped."""
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            # Without its end, after which the decoder would count a new line and name the wrong column.
            yield place, _json_object(line.rstrip("\r\n"), place)


def _json_object(line: str, place: str) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error.msg}, column {error.colno}).") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        raise DataError(f"{place}: JSON that cannot be read ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f'{place}: {line.strip()[:40]} is not an object like {{"text": ..., "label": ...}}.')
    return value


def _parquet_rows(path: Path) -> Iterator[PlacedRow]:
    number = 0
    try:
        # Without pre_buffer=False a whole row group, which may be the whole file, is fetched first.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            _refuse_repeated(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(BATCH_ROWS):
                # Python values, not pandas: there an integer column with one null would turn into floats.
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({error}).") from error


READERS: dict[str, Callable[[Path], Iterator[PlacedRow]]] = {
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".parquet": _parquet_rows,
}
