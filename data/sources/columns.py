"""From a file's columns to rows: which column is what, and what its values mean."""

import difflib
import math
import re
from collections.abc import Collection
from typing import Any

import pandas as pd

from data.errors import DataError
from data.sources.rows import SPLIT_NAMES, DataConfig, slice_key
from data.sources.tables import Table

# What people call the two columns, for the "did you mean" when `text` or `label` is not there.
OTHER_NAMES = {
    "text": ["review", "sentence", "comment", "content", "body", "message", "tweet", "document", "question"],
    "label": ["labels", "stars", "rating", "sentiment", "class", "category", "target", "score", "topic"],
}


def rows_of(table: Table, config: DataConfig, split: str | None) -> pd.DataFrame:
    """Return the table's rows with the columns text, label, split, group and slices, indexed by their places.

    Args:
        split: the split that the whole file is; None where a column of the file may say it.

    A null or blank text is None. A label is its string: 3 and 3.0 are "3", true is "true". So is the value of a
    slice column, whose null is "".

    Raises:
        DataError: a column is missing or holds another type; a label, split or group is null or unknown.
    """
    text_column = find_column(table.name, table.columns, config.text_column or "text", "text")
    label_column = find_column(table.name, table.columns, config.label_column or "label", "label")
    texts = [_text(value, place, text_column) for value, place in _cells(table, text_column)]
    # A row without a text is dropped later, so whatever else it lacks does not matter.
    labels = [
        "" if text is None else _name(value, place, label_column, "label")
        for text, (value, place) in zip(texts, _cells(table, label_column), strict=True)
    ]
    groups: list[str | None] = [None] * len(texts)
    if config.group_column is not None:
        group_column = find_column(table.name, table.columns, config.group_column, "group")
        groups = [
            "" if text is None else _name(value, place, group_column, "group")
            for text, (value, place) in zip(texts, _cells(table, group_column), strict=True)
        ]
    splits = _splits(table, config) if split is None else [split] * len(texts)
    columns = {"text": texts, "label": labels, "split": splits, "group": groups, **_slices(table, config)}
    return pd.DataFrame(columns, index=table.places, dtype=object)


def _slices(table: Table, config: DataConfig) -> dict[str, list[str]]:
    found = {name: find_column(table.name, table.columns, name, "slice") for name in config.slice_columns}
    return {
        slice_key(name): [
            "" if _is_null(value) else _name(value, place, column, "slice") for value, place in _cells(table, column)
        ]
        for name, column in found.items()
    }


def find_column(file: str, columns: Collection[str], name: str, role: str) -> str:
    """Return the name if the file has such a column; the DataError otherwise says which one was meant."""
    if name in columns:
        return name
    closest = difflib.get_close_matches(name, columns, n=1)
    by_custom = [column for column in columns if column.lower() in [role, *OTHER_NAMES.get(role, [])]]
    meant = [*by_custom, *closest] if name == role else [*closest, *by_custom]
    hint = f"Did you mean --{role}-column {meant[0]}?" if meant else f"Name it with --{role}-column."
    raise DataError(f"{file} has no column {name!r}. It has: {', '.join(columns)}. {hint}")


def _cells(table: Table, column: str) -> "zip[tuple[Any, str]]":
    return zip(table.columns[column], table.places, strict=True)


def _is_null(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any, place: str, column: str) -> str | None:
    if _is_null(value):
        return None
    if not isinstance(value, str):
        raise DataError(
            f"{place}: column {column!r} holds {value!r} ({type(value).__name__}) where a text is expected. "
            "Name the column with the texts with --text-column."
        )
    return _encodable(value, place, column)


def _name(value: Any, place: str, column: str, role: str) -> str:
    """Return the string of a label, a group or a slice, which may be a str, an int, a whole float or a bool."""
    if _is_null(value):
        raise DataError(f"{place}: the {role} (column {column!r}) is empty. Fill it in, or remove the row.")
    if isinstance(value, str):
        return _encodable(_whole(value.strip()), place, column)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return _whole(str(value))
    raise DataError(
        f"{place}: the {role} (column {column!r}) is {value!r} ({type(value).__name__}). "
        f"A {role} is a string or an integer."
    )


def _whole(name: str) -> str:
    """Drop the ".0" that a column of integers gets as soon as one table tool has held it as floats."""
    return re.sub(r"^([+-]?[0-9]+)\.0+$", r"\1", name)


def _encodable(value: str, place: str, column: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair: "\ud83d"
        raise DataError(f"{place}: column {column!r} is not valid Unicode ({error.reason}).") from error
    return value


def _splits(table: Table, config: DataConfig) -> list[str | None]:
    """Read the split column: the one that was named, or `split` if it is there and is about splits."""
    if config.split_column is None and "split" not in table.columns:
        return [None] * len(table.places)
    column = find_column(table.name, table.columns, config.split_column or "split", "split")
    values = [str(value).strip().lower() for value in table.columns[column]]
    if config.split_column is None and not any(value in SPLIT_NAMES for value in values):
        return [None] * len(values)  # a column that happens to have the name
    for value, (written, place) in zip(values, _cells(table, column), strict=True):
        if value not in SPLIT_NAMES:
            raise DataError(
                f"{place}: {written!r} in column {column!r} is not a split. Allowed: {', '.join(SPLIT_NAMES)}."
            )
    return [SPLIT_NAMES[value] for value in values]
