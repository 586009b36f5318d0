"""What every model's configuration has in common."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field


class ModelConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Base of the configurations: each model file extends it with its own sizes and defaults."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the schedule. It stands here, with what follows, because the best value is the architecture's."""
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW, times the learning rate at each step; biases and normalisation are left out."""
    epochs: int = Field(5, ge=1)
    """Passes over the training split, unless early stopping ends it before."""

    def portable(self) -> Self:
        """Return the configuration whose graph runs on any device; the weights stay the same."""
        return self
