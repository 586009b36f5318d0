"""What every model's configuration has in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from pydantic import BaseModel, Field


class Trial(Protocol):
    """Who chooses the values of one trial of a search; an Optuna trial is one. `name` is always that of a setting."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Choose from [low, high]; with `log` every factor is as likely as another."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Choose a whole number, both ends allowed."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of these values."""


class Passes(NamedTuple):
    """How many passes over the training split are enough: as many as take `steps`, within bounds."""

    steps: int
    fewest: int
    most: int

    def over(self, steps_per_pass: int) -> int:
        """Return the number for a split of that many steps."""
        return min(max(math.ceil(self.steps / steps_per_pass), self.fewest), self.most)


class ModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Base of the configurations: each model file extends it with its own sizes and defaults."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the schedule. It stands here, with what follows, because the best value is the architecture's."""
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW, times the learning rate at each step; biases and normalisation are left out."""
    epochs: int | None = Field(None, ge=1)
    """Passes over the training split, unless early stopping ends it before; None: by its size, see `PASSES`."""

    PASSES: ClassVar[Passes] = Passes(steps=600, fewest=3, most=12)
    """Few rows make few steps, so they are passed over more often."""

    def settled(self, steps_per_pass: int) -> Self:
        """Return the configuration with its epochs for a training split of that many steps."""
        return self if self.epochs else self.model_copy(update={"epochs": self.PASSES.over(steps_per_pass)})

    def portable(self) -> Self:
        """Return the configuration whose graph runs on any device; the weights stay the same."""
        return self

    @classmethod
    def suggest(cls, trial: Trial) -> dict[str, Any]:
        """Return the settings of one trial of `valence tune`: name -> value; a model with more to search adds to them.

        Searched in every model: the learning rate, the weight decay, and whatever is called `...dropout`, around the
        class's own defaults. Epochs are not: trials are judged after the same epoch, and one that stands at the start
        of a long schedule cannot be held against one at the end of a short one.
        """
        rate = cls.model_fields["learning_rate"].default
        dropouts = {name: field.default for name, field in cls.model_fields.items() if name.endswith("dropout")}
        return {
            "learning_rate": trial.suggest_float("learning_rate", rate / 5, rate * 5, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
            **{name: trial.suggest_float(name, 0.0, min(0.8, value + 0.3)) for name, value in dropouts.items()},
        }
