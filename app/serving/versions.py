"""A model on disk: numbered version folders under a base path, and which export is meant where none is named."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.errors import RequestError
from app.serving.status import Code

SAVED_MODEL_FILE = "saved_model.pb"
TRAIN_FIRST = "train first: python train.py lstm transformer"

# A folder's number is TensorFlow's int64; a longer one is no version.
_HIGHEST = 2**63 - 1

# Every path below a folder with its size in bytes and the times of its last changes in nanoseconds.
Contents = tuple[tuple[str, int, int, int], ...]


class State(StrEnum):
    """Where a version stands, in TensorFlow Serving's words (`ModelVersionStatus.State`)."""

    START = "START"  # seen, and not loaded yet
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"  # takes no new request; those under way are answered
    END = "END"  # unloaded, or failed to load


@dataclass(frozen=True)
class VersionStatus:
    """One line of a model's status: `state` is one of `State`, and `message` says why a version failed."""

    version: int
    state: str
    code: Code = Code.OK
    message: str = ""


def version_folders(path: Path) -> dict[int, Path]:
    """The folders under `path` named by an integer, highest first; or `path` itself if it is a SavedModel."""
    if (path / SAVED_MODEL_FILE).is_file():
        return {version_number(path): path}
    # Sorted by name: of `1` and `01`, two names of one version, it is always the same that counts.
    numbered = {int(child.name): child for child in sorted(_folders(path)) if _is_number(child.name)}
    return dict(sorted(numbered.items(), reverse=True))


def folder_contents(folder: Path) -> Contents:
    """What tells whether anything below the folder changed: paths, sizes, and when each was last written or altered."""
    below = (Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files))
    return tuple(sorted(entry for path in below if (entry := _entry(folder, path)) is not None))


def _entry(folder: Path, path: Path) -> tuple[str, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:  # taken away since it was listed, or a link to nowhere
        return None
    return str(path.relative_to(folder)), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def version_number(folder: Path) -> int:
    """The integer that the folder's name is, else 0."""
    return int(folder.name) if _is_number(folder.name) else 0


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and int(name) <= _HIGHEST


def _folders(path: Path) -> Iterator[Path]:
    return (child for child in path.iterdir() if child.is_dir()) if path.is_dir() else iter(())


def resolve_model(path: Path | None, model_name: str | None, exports_root: Path) -> tuple[str, Path]:
    """What to serve: the model's name and the path for `ServedModel`.

    `path` is a folder of versions or one version folder. Without it: the model of that name under
    `exports_root`, or the one exported last. The name is the folder's where none is given. Raises
    `RequestError` naming what was looked for.
    """
    if path is None:
        path = _exported(model_name, exports_root)
    if not path.is_dir():
        raise RequestError(
            f"{path} is no folder: expected one that holds version folders (1/, 2/, ...) or a SavedModel"
        )
    if not version_folders(path):
        below = sorted(child.name for child in _folders(path) if version_folders(child))
        hint = f"; did you mean {path / below[0]}?" if below else ""
        raise RequestError(
            f"{path} is no SavedModel and holds no version folder (named by an integer, with a"
            f" {SAVED_MODEL_FILE}){hint}"
        )
    name = model_name or _folder_name(path)
    if not name or set(name) & set("/:"):
        raise RequestError(f"model name {name!r}: allowed is any text without '/' and ':'")
    return name, path


def _folder_name(path: Path) -> str:
    path = path.resolve()
    is_version = (path / SAVED_MODEL_FILE).is_file() and _is_number(path.name)
    return path.parent.name if is_version else path.name


def _exported(model_name: str | None, exports_root: Path) -> Path:
    """The model exported last, or the one of that name."""
    exported = {folder: _time_of_latest_version(folder) for folder in _folders(exports_root)}
    times = {folder: time for folder, time in exported.items() if time is not None}
    if not times:
        raise RequestError(f"nothing exported yet under {exports_root}; {TRAIN_FIRST}")
    if model_name is None:
        return max(times, key=lambda folder: times[folder])
    names = {folder.name: folder for folder in times}
    if model_name not in names:
        close = difflib.get_close_matches(model_name, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise RequestError(
            f"no exported model {model_name!r} under {exports_root}; it has: {', '.join(sorted(names))}{hint}"
        )
    return names[model_name]


def _time_of_latest_version(folder: Path) -> float | None:
    files = (version / SAVED_MODEL_FILE for version in version_folders(folder).values())
    return next((file.stat().st_mtime for file in files if file.is_file()), None)
