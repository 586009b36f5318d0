"""Several models on one data set: train each, track it, compare them, export the champion."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.candidates import Candidate, Seed, as_contender, best_seed, choose_best, evaluate_together
from app.comparison import Comparison, compare
from app.config import RunConfig
from app.export import write_saved_model
from app.fitting import EpochReport, History
from app.gates import Gates
from app.promotion import Promotion, crown_winner
from app.run_records import (
    description,
    log_epoch,
    log_export,
    log_material,
    log_seeds,
    log_start,
    log_trained,
    start_notes,
    training_facts,
)
from app.serving.predictor import Predictor
from app.serving.verification import VerificationError, verify
from app.tracking import Run, Tracker
from app.training import Material, prepare, settle, train

LATENCY_TEXTS = 50


class Reporter(Protocol):
    """Who is told how an experiment goes on, as it goes on."""

    def doing(self, what: str) -> None:
        """Tell what takes a while now."""

    def downloaded(self, done: int, total: int | None) -> None:
        """Tell how many bytes of a download have come, of how many."""

    def prepared(self, material: Material) -> None:
        """Tell what the models will learn from."""

    def epoch(self, report: EpochReport) -> None:
        """Tell of a step or of an epoch's end."""

    def fitted(self, name: str, history: History) -> None:
        """Tell how a training ended: of a model (`lstm`), or of one of its seeds (`lstm seed 3`)."""

    def failed(self, name: str, reason: str) -> None:
        """Tell that one model of several, or one of its seeds, came to nothing."""

    def compared(self, material: Material, comparison: Comparison, notes: Sequence[str]) -> None:
        """Tell the figures, the verdict, and what the seeds of a model say together."""

    def exported(self, outcome: Outcome) -> None:
        """Tell where the champion went and how far it was checked."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of an experiment.

    `best` is the best of the candidates; `promotion` tells whether it also took the place of the champion until now,
    which the gates may refuse. `failures` name of a model or seed -> reason.
    """

    material: Material
    candidates: tuple[Candidate, ...]
    failures: dict[str, str]
    comparison: Comparison
    best: Candidate
    promotion: Promotion

    @property
    def export(self) -> Path | None:
        """The new version folder that is served; None where the gates kept the champion until now."""
        return self.promotion.export

    def to_dict(self) -> dict[str, Any]:
        """Return what a program would read, JSON-able."""
        return {
            "data": self.material.card.to_dict(),
            "fingerprints": self.material.fingerprints,
            "outside_text": {
                "starts_from": {one.run.name: one.run.config.init.starts_from for one in self.candidates},
                "texts_seen": self.material.seen,
            },
            "runs": [candidate.to_dict() for candidate in self.candidates],
            "comparison": self.comparison.to_dict(),
            "failures": self.failures,
            "best": self.best.run.name,
            "export": str(self.export) if self.export else None,
            "promotion": self.promotion.to_dict(),
        }


def run_experiment(
    configs: Sequence[RunConfig], artifacts: Path, reporter: Reporter, gates: Gates | None = None
) -> Outcome:
    """Train every configuration on the same material and export the best, unless a better one is champion already.

    The best is the model with the lowest log loss on validation, after calibration, on average over its seeds: the
    test split chooses nothing. It can only forbid: against a champion on the same data the best has to pass the gates,
    those of `app.gates` unless others are given.
    """
    tracker = Tracker(artifacts)
    with _folder_for_now(artifacts / "cache", "token-ids-") as cache:
        material = prepare(configs[0], cache, reporter)
        reporter.prepared(material)
        with _folder_for_now(artifacts / "cache", "saved-models-") as folder:
            candidates, failures = make_candidates(configs, material, tracker, folder, reporter)
    comparison = compare([as_contender(candidate) for candidate in candidates])
    of_starts = start_notes({one.run.name: one.run.config for one in candidates}, material)
    reporter.compared(material, comparison, [*of_starts, *(note for one in candidates for note in one.notes)])
    for candidate in candidates:
        note_verdict(tracker, candidate, comparison)
    best = choose_best(candidates)
    promotion = crown_winner(tracker, best.run_id, artifacts / "exports", gates or Gates())
    outcome = Outcome(material, candidates, failures, comparison, best, promotion)
    reporter.exported(outcome)
    return outcome


def make_candidates(
    configs: Sequence[RunConfig], material: Material, tracker: Tracker, folder: Path, reporter: Reporter
) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """Train every configuration; return those that came out whole, and name -> reason of other models and seeds.

    Raises:
        FloatingPointError, VerificationError: that of the last model, when no model came out whole.
    """
    candidates: list[Candidate] = []
    failures: dict[str, str] = {}
    for config in configs:
        try:
            candidates.append(make_candidate(config, material, tracker, folder / config.model_name, reporter))
            failures |= candidates[-1].failed_seeds
        except (FloatingPointError, VerificationError) as error:
            if config is configs[-1] and not candidates:
                raise
            failures[config.model_name] = str(error)
            reporter.failed(config.model_name, str(error))
    return tuple(candidates), failures


def make_candidate(
    config: RunConfig, material: Material, tracker: Tracker, folder: Path, reporter: Reporter
) -> Candidate:
    """Train one model, once or with several seeds, and keep everything about it in one MLflow run and its children."""
    name, config = config.model_name, settle(config, material)
    with tracker.run(experiment=material.splits.name, name=name) as run:
        log_start(run, config, material)
        log_material(run, material)
        seeds, failed = train_seeds(config, run, material, tracker, reporter)
        best, evaluation = best_seed(seeds).run, evaluate_together(seeds)
        if config.seeds > 1:
            log_seeds(run, [seed.run for seed in seeds], best, evaluation)
        write_saved_model(best, folder, material.splits.name)
        verification = verify(folder)
        milliseconds = measure_latency(folder, material.splits.test.texts)
        log_export(run, verification, milliseconds)
        version = run.log_saved_model(
            folder,
            registered_name=material.splits.name,
            example=material.splits.test.texts[0],
            tags={
                "model": name,
                "fingerprint.data": material.fingerprints["data"],
                "fingerprint.split": material.fingerprints["split"],
                "validation_log_loss": repr(best.validation_log_loss),
            },
        )
    return Candidate(seeds, evaluation, run.id, version, folder, verification, milliseconds, failed)


def train_seeds(
    config: RunConfig, run: Run, material: Material, tracker: Tracker, reporter: Reporter
) -> tuple[tuple[Seed, ...], dict[str, str]]:
    """Train a model with each of its seeds; return those that worked, and name -> reason of the others.

    A single seed is kept in `run`, that of the model; of several each has a child run of its own.

    Raises:
        FloatingPointError: that of the last seed, when none worked.
    """
    if config.seeds == 1:
        return (train_one(config, config.model_name, material, run, reporter),), {}
    seeds: list[Seed] = []
    failed: dict[str, str] = {}
    for of_seed in config.by_seed():
        title = f"{config.model_name} seed {of_seed.seed}"
        try:
            with tracker.run(experiment=material.splits.name, name=title, nested=True) as child:
                log_start(child, of_seed, material)
                seeds.append(train_one(of_seed, title, material, child, reporter))
        except FloatingPointError as error:
            if len(failed) + 1 == config.seeds:
                raise
            failed[title] = str(error)
            reporter.failed(title, str(error))
    return tuple(seeds), failed


def train_one(config: RunConfig, title: str, material: Material, run: Run, reporter: Reporter) -> Seed:
    """Train a model once and log what came of it; `title` is what people are told it is called."""

    def listen(report: EpochReport) -> None:
        log_epoch(run, report)
        reporter.epoch(dataclasses.replace(report, model_name=f"{title} {report.part}".rstrip()))

    trained = train(config, material, listen)
    reporter.fitted(title, trained.history)
    log_trained(run, trained, title)
    return Seed(trained, run.id, title)


def note_verdict(tracker: Tracker, candidate: Candidate, comparison: Comparison) -> None:
    """Describe the runs of a model, now that it is known how it stands beside the others."""
    material = candidate.run.material
    for seed in candidate.seeds:
        facts = training_facts(seed.run)
        text = description(material, seed.title, seed.run.evaluation, facts, comparison.sentences)
        tracker.describe(seed.run_id, text)
    if candidate.run_id not in [seed.run_id for seed in candidate.seeds]:
        of_start = start_notes({candidate.run.name: candidate.run.config}, material)
        facts = " ".join([f"the mean of its seeds. {candidate.note}", *of_start])
        text = description(material, candidate.run.name, candidate.evaluation, facts, comparison.sentences)
        tracker.describe(candidate.run_id, text)
    tracker.attach(candidate.run_id, "comparison.json", comparison.to_dict())


def measure_latency(saved_model: Path, texts: Sequence[str]) -> float:
    """Median milliseconds that the SavedModel takes for one text, once it is warm."""
    predictor = Predictor(saved_model)
    sample = [texts[row % len(texts)] for row in range(LATENCY_TEXTS)]
    for text in sample[: LATENCY_TEXTS // 5]:
        predictor.predict([text])
    return statistics.median(_milliseconds(predictor, text) for text in sample)


@contextlib.contextmanager
def _folder_for_now(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder below `parent` that goes at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
        yield Path(folder)


def _milliseconds(predictor: Predictor, text: str) -> float:
    started = time.perf_counter()
    predictor.predict([text])
    return 1_000 * (time.perf_counter() - started)
