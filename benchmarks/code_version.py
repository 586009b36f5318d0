"""Which version of the code a kept result is of: a fingerprint of the files that its figures come from.

It is kept in a result and is no part of its key: a changed comment would throw hours of training away. What is of
another version is told, and trained again with `--anew`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
OF_APP = (
    "training",
    "fitting",
    "fusion",
    "averaging",
    "optimizer",
    "devices",
    "calibration",
    "metrics",
    "initial_weights",
)
"""The modules of app that say what a trained model answers; those of models and data all do."""


@cache
def version_of_models() -> str:
    """Version of what our models are trained with, as the files stood at the first call: those that were imported."""
    folders = [file for folder in ("models", "data") for file in (ROOT / folder).rglob("*.py")]
    return fingerprint(ROOT, [*folders, *(ROOT / "app" / f"{name}.py" for name in OF_APP)])


@cache
def version_of_script(name: str) -> str:
    """Version of one script of this folder, which needs nothing else of ours."""
    return fingerprint(ROOT, [Path(__file__).parent / name])


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """The start of a sha256 over names below `root` and contents, whatever the order of the files."""
    named = sorted((file.relative_to(root).as_posix(), file.read_bytes()) for file in files)
    found = hashlib.sha256()
    for name, content in named:
        found.update(f"{name} {len(content)} ".encode() + content)
    return found.hexdigest()[:16]


def called(version: str | None) -> str:
    """As it is shown: its first characters, or that a result from before versions were kept has none."""
    return version[:8] if version else "unknown version"
