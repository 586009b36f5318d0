"""The versions of one model: what state each is in, and which is to be loaded or unloaded next.

The rules are those of TensorFlow Serving's AvailabilityPreservingPolicy: a version that is not wanted any more is
served until one that is wanted has loaded, and no more than one version is held beyond those that are wanted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.serving.model_config import ModelSettings
from app.serving.status import Code
from app.serving.versions import Contents, State, VersionStatus, folder_contents

if TYPE_CHECKING:
    from app.serving.servable import Servable

# Versions that ended and left the disk are listed up to this number, so that years of versions need no more memory.
HISTORY = 32


@dataclass(eq=False, slots=True)
class Version:
    """One version of a model, from the moment that its folder is seen; `leases` counts the requests it answers."""

    number: int
    folder: Path
    contents: Contents | None = None  # of the folder, when it was last looked at
    unchanged_since: float = 0.0  # on the monotonic clock, in seconds
    settled: bool = False  # nothing below the folder changed for long enough to load it
    state: State = State.START
    code: Code = Code.OK
    message: str = ""
    servable: Servable | None = None
    leases: int = 0

    @property
    def failed(self) -> bool:
        """Whether it could not be loaded."""
        return self.state is State.END and self.code is not Code.OK


class Step(NamedTuple):
    """What to do next with a model: load this version, or unload it."""

    load: bool
    version: Version


class ModelVersions:
    """One model's versions by number, those of them that answer (`serving`), and the labels that can be used.

    One thread drives it (`reconsider`, `observe`, `next_step`, and what changes a state); others read `serving`,
    `latest` and `labels` and count leases, always under `lock`.
    """

    def __init__(self, settings: ModelSettings, lock: threading.Lock) -> None:
        self.settings = settings
        self.lock = lock
        self.versions: dict[int, Version] = {}
        self.serving: dict[int, Version] = {}
        self.latest: Version | None = None  # the highest that answers
        self.labels: dict[str, int] = {}

    def reconsider(self, folders: Mapping[int, Path], settle_seconds: float) -> None:
        """Give the versions that failed another chance if their files changed since."""
        whole = [number for number in folders if not self._has_failed(number)]
        for number in set(folders) - set(whole):
            if number in self.settings.version_policy.choose([*whole, number]):
                self._look_at(number, folders[number], settle_seconds)

    def observe(self, folders: Mapping[int, Path], settle_seconds: float) -> None:
        """Note what is on disk: `folders` by version number.

        A version that is wanted gets the state START, and is loaded once its files have been the same for
        `settle_seconds`: a folder that is still being copied is left alone.
        """
        aspired = self._aspired(folders)
        for number in aspired:
            self._look_at(number, folders[number], settle_seconds)
        self._forget(set(folders), set(aspired))

    def next_step(self, folders: Mapping[int, Path]) -> Step | None:
        """What to do next, None when everything is as wanted (or waits for files to settle)."""
        aspired = self._aspired(folders)
        extra = sorted(set(self.serving) - set(aspired))
        is_any_wanted = bool(self.settings.version_policy.choose(folders))
        is_replaced = any(number in self.serving for number in aspired)
        if extra and (not is_any_wanted or is_replaced or len(extra) > 1):
            return Step(False, self.serving[extra[0]])
        for number in aspired:
            version = self.versions.get(number)
            if version is not None and version.state is State.START and version.settled:
                return Step(True, version)
        return None

    def enter(self, version: Version, state: State, code: Code = Code.OK, message: str = "") -> None:
        """Change a version's state; it takes requests from AVAILABLE on, and no new ones from UNLOADING on."""
        with self.lock:
            version.state, version.code, version.message = state, code, message
            if state is State.AVAILABLE:
                self.serving[version.number] = version
            else:
                self.serving.pop(version.number, None)
            self.latest = self.serving[max(self.serving)] if self.serving else None

    def assign_labels(self) -> list[str]:
        """Put the labels where the settings want them; return the reason for each that has to wait.

        A label moves to a version that answers and to no other: until then it stays where it was.
        """
        wanted = self.settings.labels
        labels = {label: number for label, number in self.labels.items() if label in wanted}
        complaints = []
        for label, number in wanted.items():
            if number in self.serving:
                labels[label] = number
            elif labels.get(label) != number:
                complaints.append(
                    f"Request to assign label {label} to version {number} of model {self.settings.name}, which is not"
                    " currently available for inference"
                )
        with self.lock:
            self.labels = labels
        return complaints

    def statuses(self) -> list[VersionStatus]:
        """Every version that is known, newest first."""
        with self.lock:
            versions = sorted(self.versions.values(), key=lambda version: version.number, reverse=True)
            return [VersionStatus(found.number, found.state, found.code, found.message) for found in versions]

    def _aspired(self, folders: Iterable[int]) -> list[int]:
        """The versions that the policy wants of those that did not fail, highest first."""
        return self.settings.version_policy.choose(number for number in folders if not self._has_failed(number))

    def _has_failed(self, number: int) -> bool:
        return number in self.versions and self.versions[number].failed

    def _look_at(self, number: int, folder: Path, settle_seconds: float) -> None:
        version = self.versions.get(number) or Version(number, folder)
        if version.state not in (State.START, State.END):
            return
        contents, now = folder_contents(folder), time.monotonic()
        if contents != version.contents:
            version.contents, version.unchanged_since = contents, now
        elif version.failed:
            return
        version.folder, version.settled = folder, now - version.unchanged_since >= settle_seconds
        self.enter(version, State.START)
        with self.lock:
            self.versions[number] = version

    def _forget(self, present: set[int], wanted: set[int]) -> None:
        """Drop what was never loaded and is not wanted any more, and the oldest of what ended and left the disk."""
        unused = [n for n, version in self.versions.items() if version.state is State.START and n not in wanted]
        ended = [
            number
            for number, version in self.versions.items()
            if version.state is State.END and not (version.failed and number in present)
        ]
        with self.lock:
            for number in unused + sorted(ended, reverse=True)[HISTORY:]:
                del self.versions[number]
