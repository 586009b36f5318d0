"""Sources of labelled texts: a name in `SOURCES`, or a path. A new one is a function and a line here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data.errors import DataError
from data.sources.files import load_files, load_folder, no_such_source
from data.sources.imdb import load_imdb
from data.sources.rotten_tomatoes import load_rotten_tomatoes
from data.sources.rows import DataConfig, Progress, RawRows, safe_name

__all__ = ["SOURCES", "DataConfig", "Progress", "RawRows", "load_rows"]

SOURCES: dict[str, Callable[[DataConfig, Progress | None], RawRows]] = {
    "rotten-tomatoes": load_rotten_tomatoes,
    "imdb": load_imdb,
}

# What only some kinds of source can use: an option that would be ignored is refused instead.
COLUMNS = ("text_column", "label_column", "split_column", "group_column", "slice_columns")
FILES = ("validation", "test")


def load_rows(config: DataConfig, progress: Progress | None = None) -> RawRows:
    """Read the rows of the source that the config names.

    A name in SOURCES wins over a file of the same name: write `./imdb` for the file.

    Raises:
        DataError: there is no such source or file, or it cannot be used; the message says where and why.
    """
    rows = _load(config, progress)
    return replace(rows, name=safe_name(config.name)) if config.name else rows


def _load(config: DataConfig, progress: Progress | None) -> RawRows:
    path = Path(config.source)
    if config.source in SOURCES:
        _refuse(config, *COLUMNS, *FILES, *(() if config.source == "imdb" else ("archive",)))
        return SOURCES[config.source](config, progress)
    if path.is_dir():
        _refuse(config, *COLUMNS, *FILES, "archive")
        return load_folder(config)
    if path.exists():
        _refuse(config, "archive")
        return load_files(config)
    raise no_such_source(config.source, list(SOURCES))


def _refuse(config: DataConfig, *fields: str) -> None:
    for field in fields:
        if getattr(config, field) not in (None, ()):
            option = "--" + field.replace("_", "-").removesuffix("s")
            raise DataError(f"{option} means nothing for the source {config.source!r}: leave it out.")
