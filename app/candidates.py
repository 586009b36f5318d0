"""A trained model on its way to be champion: the seeds it was trained with, and the SavedModel of the best of them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app import wording
from app.comparison import Contender
from app.metrics import Evaluation, evaluate_seeds
from app.seed_notes import seed_note
from app.serving.verification import Verification
from app.training import TrainedRun


@dataclass(frozen=True, eq=False)
class Seed:
    """One training of a model, and the MLflow run it was kept in; `title` as people are told ("lstm seed 3")."""

    run: TrainedRun
    run_id: str
    title: str

    def to_dict(self) -> dict[str, Any]:
        """Return what a program would read, JSON-able."""
        history = self.run.history
        return {
            "seed": self.run.config.seed,
            "run_id": self.run_id,
            "validation_log_loss": self.run.validation_log_loss,
            "temperature": self.run.temperature,
            "evaluation": self.run.evaluation.to_dict(),
            "encoder_evaluation": self.run.encoder_evaluation and self.run.encoder_evaluation.to_dict(),
            "training": {**dataclasses.asdict(history), "best_epoch": history.best_epoch},
        }


@dataclass(frozen=True, eq=False)
class Candidate:
    """A trained model, of one seed or several, with the SavedModel of the best: checked, not yet given a version.

    `evaluation` holds the test figures over all seeds; `run_id` is the MLflow run of the whole model; `failed_seeds`
    name of a seed ("lstm seed 3") -> reason.
    """

    seeds: tuple[Seed, ...]
    evaluation: Evaluation
    run_id: str
    registered_version: str
    saved_model: Path
    verification: Verification
    milliseconds_per_text: float
    failed_seeds: dict[str, str]

    @property
    def run(self) -> TrainedRun:
        """The training whose weights are exported: of all seeds the one with the lowest validation log loss."""
        return best_seed(self.seeds).run

    @property
    def validation_log_loss(self) -> float:
        """What models are chosen by: the mean over the seeds, so that none wins by luck."""
        return statistics.mean(seed.run.validation_log_loss for seed in self.seeds)

    @property
    def note(self) -> str | None:
        """What the seeds say together; None where one was asked for."""
        if len(self.seeds) + len(self.failed_seeds) == 1:
            return None
        note = seed_note(
            self.run.name,
            [seed.run.config.seed for seed in self.seeds],
            [seed.run.evaluation for seed in self.seeds],
        )
        interrupted = [seed.title for seed in self.seeds if seed.run.history.ended == "interrupted"]
        for what, titles in (("Failed", list(self.failed_seeds)), ("Interrupted", interrupted)):
            note += f" {what}: {wording.listing(titles)}." if titles else ""
        return note

    @property
    def notes(self) -> list[str]:
        """What is told below the figures of all models."""
        return [note for note in (self.note, self.encoder_note) if note]

    @property
    def encoder_note(self) -> str | None:
        """What the encoder reaches without the n-grams beside it, mean of its seeds; None where there are none."""
        found = [seed.run.encoder_evaluation for seed in self.seeds]
        alone = [one.metrics["accuracy"] for one in found if one is not None]
        if not alone:
            return None
        if len(alone) == 1:
            return f"{self.run.name} without the n-grams beside it: accuracy {wording.interval(alone[0])}."
        mean = statistics.mean(one.value for one in alone)
        return f"{self.run.name} without the n-grams beside it: accuracy {mean:.3f}, mean of {len(alone)} seeds."

    def to_dict(self) -> dict[str, Any]:
        """Return what a program would read, JSON-able. What only one training has is that of the exported seed."""
        return {
            "model": self.run.name,
            "registered_version": self.registered_version,
            "milliseconds_per_text": self.milliseconds_per_text,
            "golden_difference": self.verification.largest_difference,
            **best_seed(self.seeds).to_dict(),
            "run_id": self.run_id,
            "validation_log_loss": self.validation_log_loss,
            "evaluation": self.evaluation.to_dict(),
            "seeds": [seed.to_dict() for seed in self.seeds],
            "note": self.note,
        }


def best_seed(seeds: Sequence[Seed]) -> Seed:
    """Return the seed with the lowest log loss on validation."""
    return min(seeds, key=lambda seed: seed.run.validation_log_loss)


def choose_best(candidates: Sequence[Candidate]) -> Candidate:
    """Return the model with the lowest log loss on validation, on average over its seeds."""
    return min(candidates, key=lambda candidate: candidate.validation_log_loss)


def evaluate_together(seeds: Sequence[Seed]) -> Evaluation:
    """Return the test figures of a model over its seeds: means, with intervals that cover the choice of seeds too."""
    first = seeds[0].run
    if len(seeds) == 1:
        return first.evaluation
    label_ids, label_names = first.material.splits.test.label_ids, first.material.splits.label_names
    return evaluate_seeds(label_ids, test_probabilities(seeds), label_names)


def test_probabilities(seeds: Sequence[Seed]) -> np.ndarray:
    """Return float[seeds, rows of test, classes]."""
    return np.stack([seed.run.test_probabilities for seed in seeds])


def as_contender(candidate: Candidate) -> Contender:
    """Return what the comparison needs of a candidate: all its seeds are one contender."""
    runs = [seed.run for seed in candidate.seeds]
    return Contender(
        name=candidate.run.name,
        label_ids=candidate.run.material.splits.test.label_ids,
        probabilities=test_probabilities(candidate.seeds),
        evaluation=candidate.evaluation,
        training_seconds=statistics.mean(run.history.seconds for run in runs),
        milliseconds_per_text=candidate.milliseconds_per_text,
    )
