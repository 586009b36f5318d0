"""What promotion needs of a model registry (`app.tracking.Tracker` is one), and what it knows of a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHAMPION = "champion"
PREVIOUS = "previous"
# What decides on which texts a model was measured.
SAME_TEST_SPLIT = ("fingerprint.data", "fingerprint.split")


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered version: of which model, made by which run, with its tags (`model`, `fingerprint.data`, ...)."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def model(self) -> str:
        """Which model was trained: "lstm"."""
        return self.tags.get("model", "?")

    def __str__(self) -> str:
        return f"{self.name} version {self.version} ({self.model})"


class Registry(Protocol):
    """Registered models with their versions and aliases. An error of the store is a `RuntimeError`."""

    def registered_version(self, reference: str) -> RegisteredVersion:
        """The version that a run registered. RequestError for an unknown run, or one without a version."""

    def aliased_version(self, name: str, alias: str) -> RegisteredVersion | None:
        """The version that an alias of a registered model points at, None where there is none."""

    def aliased_models(self, alias: str) -> list[str]:
        """The names of the registered models that have this alias, in order."""

    def set_alias(self, name: str, alias: str, version: str | None) -> None:
        """Point an alias at a version; None takes the alias away."""

    def tag_version(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a registered version."""

    def download_saved_model(self, name: str, version: str, folder: Path) -> Path:
        """Copy the SavedModel of a registered version below `folder` and return where it is."""

    def fetch(self, run_id: str, path: str) -> Path:
        """Where a run's artifact is on this disk. RequestError where the run has none of this name."""


def differences(first: RegisteredVersion, second: RegisteredVersion) -> list[str]:
    """What of the data is not the same for two versions: "fingerprint.data (1f00c0de against 2b2b2b2b)"."""
    return [
        f"{key} ({_short(first.tags.get(key))} against {_short(second.tags.get(key))})"
        for key in SAME_TEST_SPLIT
        if first.tags.get(key) != second.tags.get(key)
    ]


def _short(value: str | None) -> str:
    return value[:8] if value else "not logged"
