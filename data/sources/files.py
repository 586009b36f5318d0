"""A source that is a path: a table in one file or one for each split, or a folder of text files."""

import difflib
from pathlib import Path

import pandas as pd

from data.errors import DataError
from data.sources.columns import rows_of
from data.sources.rows import SPLIT_NAMES, DataConfig, RawRows, make_rows
from data.sources.streams import known_suffixes
from data.sources.tables import read_table, read_text


def load_files(config: DataConfig) -> RawRows:
    """Read one table, whose split column may say what is what, or one table for each split.

    Raises:
        DataError: see `read_table` and `rows_of`; or both a split column and a file for a split are named.
    """
    named = {"train": Path(config.source), "validation": config.validation, "test": config.test}
    files = {split: path for split, path in named.items() if path is not None}
    if len(files) == 1:
        frame = rows_of(read_table(files["train"]), config, split=None)
    else:
        if config.split_column is not None:
            raise DataError("--split-column is for one file with all splits; here each has its own.")
        frame = pd.concat([rows_of(read_table(path), config, split) for split, path in files.items()])
    origin = ", ".join(path.name for path in files.values())
    return make_rows(Path(config.source).stem, frame, origin, config.group_column, config.slice_columns)


def load_folder(config: DataConfig) -> RawRows:
    """Read a folder with one sub-folder per class, or train/<class>, test/<class>: each text a .txt file.

    Files are read in the order of their names. Which classes there are is decided over all splits at once.

    Raises:
        DataError: there are no such sub-folders, one holds no .txt file, or a file is not UTF-8.
    """
    root = Path(config.source)
    if (root / "train" / "urls_pos.txt").is_file():
        raise DataError(f"{root} is the unpacked aclImdb archive: read it with --data imdb --archive {root}")
    rows: list[tuple[str, str, str, str | None]] = []
    for split, folder in _split_folders(root):
        for label_folder in _class_folders(folder):
            for path in _text_files(label_folder):
                rows.append((str(path.relative_to(root)), read_text(path), label_folder.name.strip(), split))
    places, texts, labels, splits = zip(*rows, strict=True)
    frame = pd.DataFrame(
        {"text": texts, "label": labels, "split": splits, "group": None}, index=list(places), dtype=object
    )
    return make_rows(root.resolve().name, frame, f"{root.resolve().name}/")


def _split_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Say whether the sub-folders are splits (all have such names, one is train) or classes."""
    splits = [(SPLIT_NAMES.get(folder.name.lower()), folder) for folder in _folders(root)]
    names = [split for split, _ in splits]
    if "train" not in names or None in names:
        return [(None, root)]
    for split, folder in splits:
        if names.count(split) > 1:
            raise DataError(f"{root}: more than one sub-folder is the {split} split ({folder.name} is one).")
    return list(splits)


def _class_folders(folder: Path) -> list[Path]:
    classes = _folders(folder)
    if not classes:
        tables = sorted(path.name for path in folder.iterdir() if path.is_file())[:5]
        holds = f" It holds {', '.join(tables)}: name a file, not the folder." if tables else ""
        raise DataError(f"the folder {folder} has no sub-folder: one for each class is expected.{holds}")
    return classes


def _text_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"the folder {folder} stands for a class but holds no .txt file.")
    return files


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def no_such_source(source: str, names: list[str]) -> DataError:
    """Return the error for what is neither a named source nor a path, with the closest name."""
    parent = Path(source).parent
    there = [str(path) for path in sorted(parent.iterdir())] if parent.is_dir() else []
    closest = difflib.get_close_matches(source, [*names, *there], n=1)
    hint = f" Did you mean {closest[0]}?" if closest else ""
    return DataError(
        f"no such source or file: {source!r}.{hint} Sources: {', '.join(sorted(names))}; or a path to a file "
        f"or to a folder with one sub-folder per class. {known_suffixes()}"
    )
