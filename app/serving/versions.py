"""A model on disk: numbered version folders under a base path, of which the highest that loads is served."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import RequestError
from app.serving.status import Code, ServingError

if TYPE_CHECKING:
    from app.serving.servable import Servable

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


class ServedModel:
    """A model by its name, with one version loaded.

    Loads the highest version under `base_path`, or `base_path` itself where that is a version folder. A
    version that fails stays in the status as END and the next lower one is tried. Raises `RequestError` when
    none loads.
    """

    def __init__(self, name: str, base_path: Path) -> None:
        self.name = name
        self.base_path = base_path
        self._statuses: list[VersionStatus] = []
        self._servable = self._load_highest()

    def servable(self, version: int | None = None) -> Servable:
        """The loaded version: the given one, or the latest. Raises `ServingError` NOT_FOUND."""
        if version is not None and version != self._servable.version:
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Specific({self.name}, {version})")
        return self._servable

    def statuses(self, version: int | None = None) -> list[VersionStatus]:
        """What became of each version that was tried, newest first. Raises `ServingError` NOT_FOUND."""
        if version is None:
            return list(self._statuses)
        found = [status for status in self._statuses if status.version == version]
        if not found:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {self.name}")
        return found

    def _load_highest(self) -> Servable:
        # Imported here, where TensorFlow is needed: a wrong flag or `--help` should not wait seconds for it.
        from app.serving.servable import Servable

        for version, folder in version_folders(self.base_path).items():
            try:
                servable = Servable(folder)
                servable.warm_up()
            except RequestError as error:
                self._statuses.append(VersionStatus(version, "END", _failure_code(folder), str(error)))
            else:
                self._statuses.append(VersionStatus(version, "AVAILABLE"))
                return servable
        reasons = "; ".join(status.message for status in self._statuses)
        raise RequestError(
            reasons or f"{self.base_path} holds no version folder: named by an integer, with a {SAVED_MODEL_FILE}"
        )


def _failure_code(folder: Path) -> Code:
    return Code.INTERNAL if (folder / SAVED_MODEL_FILE).is_file() else Code.NOT_FOUND


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
