"""What a search tries: a model's own space, stretched so that the configuration it starts from lies in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
from app.fairness import code_fingerprint
from models import ModelConfig
from models.config import Trial
from models.wide import WideConfig

TRIAL_CODE: tuple[Path, ...] = (
    *sorted(Path(models.__path__[0]).glob("*.py")),
    *(
        Path(__file__).with_name(f"{name}.py")
        for name in (
            "averaging",
            "calibration",
            "devices",
            "fitting",
            "fusion",
            "optimizer",
            "search_space",
            "training",
        )
    ),
)
"""The code that decides what a trial is and what its figure comes to: networks with their spaces, and training."""


class StartTrial:
    """A trial that chooses what the search starts from."""

    def __init__(self, start: ModelConfig) -> None:
        self._start = start

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return the start's value."""
        return float(getattr(self._start, name))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return the start's value."""
        return int(getattr(self._start, name))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the start's value."""
        return getattr(self._start, name)


class StretchedTrial:
    """A trial whose ranges reach as far as the start: Optuna can learn only from a start that lies in the space.

    A start of 0 where factors are searched stays 0: it has no logarithm, and who switched something off meant it.
    """

    def __init__(self, trial: Trial, start: ModelConfig) -> None:
        self._trial, self._start = trial, start

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Choose from the range that also holds the start's value."""
        value = float(getattr(self._start, name))
        if log and value <= 0:
            return value
        return self._trial.suggest_float(name, min(low, value), max(high, value), log=log)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Choose from the range that also holds the start's value."""
        value = int(getattr(self._start, name))
        if log and value <= 0:
            return value
        return self._trial.suggest_int(name, min(low, value), max(high, value), log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of the values, the start's among them."""
        value = getattr(self._start, name)
        return self._trial.suggest_categorical(name, choices if value in choices else [*choices, value])


def start_settings(start: ModelConfig) -> dict[str, Any]:
    """Return the searched settings as they stand in `start`: what the first trial is told to take."""
    return type(start).suggest(StartTrial(start))


def choose(trial: Trial, start: ModelConfig) -> ModelConfig:
    """Return the configuration that a trial is about: `start` with the searched settings chosen by `trial`."""
    return with_settings(start, type(start).suggest(StretchedTrial(trial, start)))


def with_settings(start: ModelConfig, settings: Mapping[str, Any]) -> ModelConfig:
    """Return `start` with other values, checked as those of a file are."""
    return type(start).model_validate({**start.model_dump(), **settings})


def has_ngrams(start: ModelConfig) -> bool:
    """Return whether a model of n-grams stands beside the encoder."""
    return isinstance(start, WideConfig) and start.wide


def without_ngrams(start: ModelConfig) -> ModelConfig:
    """Return `start` as trials train it: the encoder alone, for no space reaches the n-grams beside it.

    They would be trained anew in every trial, all alike, for time that further trials can have.
    """
    return start.model_copy(update={"wide": False}) if has_ngrams(start) else start


def space_version() -> str:
    """Return the SHA-256 (hex) of the code that trials depend on (`TRIAL_CODE`), without comments and docstrings.

    Where a space, a network or its training changes, figures of before say nothing of what would come out now.
    """
    return code_fingerprint([source.read_text(encoding="utf-8") for source in TRIAL_CODE])
