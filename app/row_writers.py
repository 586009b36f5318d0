"""Rows to CSV, TSV, JSONL and Parquet files, a chunk at a time."""

from __future__ import annotations

import base64
import contextlib
import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date, time
from pathlib import Path
from typing import Any, TextIO

import pyarrow
import pyarrow.parquet

from data.errors import DataError
from data.sources.streams import READERS, Row, stream_chunks

Write = Callable[[Sequence[Row]], None]

WRITABLE = tuple(READERS)  # the suffixes of files that can be written: those that can be read
CHUNK_ROWS = 1024  # rows in memory at once while the types of their columns are found out
ROW_GROUP_BYTES = 32 * 1024 * 1024  # a Parquet file of many small row groups is large and slow to read

_UNFIT = (pyarrow.ArrowException, ValueError, OverflowError)
_INSTEAD = "Write .jsonl instead, which takes any values."


def open_writer(
    path: Path, columns: Sequence[str], schema: pyarrow.Schema | None = None
) -> AbstractContextManager[Write]:
    """Open a new file, of the format that its suffix names, for rows with these columns.

    A row may leave a column out: that is an empty field in CSV and TSV, a null in Parquet, and left out in
    JSONL. What a format has no value for:

    - CSV and TSV: lists, objects, booleans and numbers are written as JSON, a null as an empty field.
    - JSONL: dates and times are in ISO 8601, bytes in base64, NaN and Infinity null, all else its string.

    Args:
        schema: the columns with their types, for Parquet only.
    """
    if schema is not None:
        return _parquet_writer(path, schema)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _delimited_writer(path, columns, "," if path.suffix.lower() == ".csv" else "\t")
    return _jsonl_writer(path)


@contextlib.contextmanager
def _delimited_writer(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Write]:
    with _open_text(path) as file:
        plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

        def write(rows: Sequence[Row]) -> None:
            for row in rows:
                fields = [_field(row.get(name)) for name in columns]
                # Python 3.11 leaves a lone carriage return without quotes, where a reader sees the row's end.
                (quoted if any("\r" in field for field in fields) else plain).writerow(fields)

        write([dict(zip(columns, columns, strict=True))])
        yield write


@contextlib.contextmanager
def _jsonl_writer(path: Path) -> Iterator[Write]:
    with _open_text(path) as file:
        yield lambda rows: file.writelines(json.dumps(_jsonable(row), ensure_ascii=False) + "\n" for row in rows)


@contextlib.contextmanager
def _parquet_writer(path: Path, schema: pyarrow.Schema) -> Iterator[Write]:
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        waiting: list[pyarrow.Table] = []

        def write(rows: Sequence[Row]) -> None:
            waiting.append(_table(rows, schema))
            if sum(table.nbytes for table in waiting) >= ROW_GROUP_BYTES:
                write_group()

        def write_group() -> None:
            file.write_table(pyarrow.concat_tables(waiting))
            waiting.clear()

        yield write
        if waiting:
            write_group()


def _open_text(path: Path) -> TextIO:
    # Half of a surrogate pair has no UTF-8 form: it becomes \ud83d, which is also how JSON spells it.
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


def _field(value: Any) -> str:
    if isinstance(value, str):
        return value
    value = _jsonable(value)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return float.__repr__(value)  # as JSON has it, sooner: answers are floats
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _jsonable(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(member) for member in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _table(rows: Sequence[Row], schema: pyarrow.Schema) -> pyarrow.Table:
    try:
        return pyarrow.Table.from_pylist(rows, schema)
    except _UNFIT as error:  # a whole number beyond 2**53 in a column that has fractions as well, ...
        raise DataError(f"a value has no place in a Parquet file ({error}). {_INSTEAD}") from error


# --- the types of Parquet's columns ---


def parquet_schema(source: Path, columns: Sequence[str]) -> pyarrow.Schema:
    """Return the types of a file's columns: a Parquet file's own, else types that have room for every value.

    Raises `DataError` when there is no such type, or none that Parquet has.
    """
    if source.suffix.lower() == ".parquet":
        return pyarrow.parquet.read_schema(source)
    schema = pyarrow.schema([(name, pyarrow.null()) for name in columns])
    try:
        for chunk in stream_chunks(source, CHUNK_ROWS):
            found = [(name, pyarrow.array([row.get(name) for _, row in chunk]).type) for name in columns]
            schema = pyarrow.unify_schemas([schema, pyarrow.schema(found)], promote_options="permissive")
        with pyarrow.parquet.ParquetWriter(pyarrow.BufferOutputStream(), schema):
            pass  # Arrow has types that Parquet lacks, and only the writer knows
    except _UNFIT as error:
        raise DataError(f"{source} cannot become a Parquet file ({error}). {_INSTEAD}") from error
    return schema
