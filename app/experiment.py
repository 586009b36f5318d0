"""Several models on one data set: train each, track it, compare them, export the champion."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app import figures
from app.calibration import softmax
from app.comparison import Comparison, Contender, compare
from app.config import RunConfig
from app.export import publish, write_saved_model
from app.fitting import EpochReport, History
from app.serving.predictor import Predictor
from app.serving.verification import Verification, VerificationError, verify
from app.tracking import Champion, Run, Tracker
from app.training import Material, TrainedRun, prepare, train

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
        """Tell how the training of one model ended."""

    def failed(self, name: str, reason: str) -> None:
        """Tell that one model of several came to nothing."""

    def compared(self, material: Material, comparison: Comparison) -> None:
        """Tell the figures and the verdict."""

    def exported(self, outcome: Outcome) -> None:
        """Tell where the champion went and how far it was checked."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A trained run with its SavedModel, checked but not yet given a version."""

    run: TrainedRun
    run_id: str
    registered_version: str
    saved_model: Path
    verification: Verification
    milliseconds_per_text: float

    def to_dict(self) -> dict[str, Any]:
        """Return what a program would read, JSON-able."""
        return {
            "model": self.run.name,
            "run_id": self.run_id,
            "registered_version": self.registered_version,
            "validation_log_loss": self.run.validation_log_loss,
            "temperature": self.run.temperature,
            "evaluation": self.run.evaluation.to_dict(),
            "training": {**dataclasses.asdict(self.run.history), "best_epoch": self.run.history.best_epoch},
            "milliseconds_per_text": self.milliseconds_per_text,
            "golden_difference": self.verification.largest_difference,
        }


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of an experiment.

    `export` is the champion's version folder; `failures` model name -> reason; `before` the champion until now.
    """

    material: Material
    candidates: tuple[Candidate, ...]
    failures: dict[str, str]
    comparison: Comparison
    champion: Candidate
    export: Path
    before: Champion | None

    @property
    def was_better_before(self) -> bool:
        """Whether the champion until now did better on the same data: its validation split is the same."""
        return (
            self.before is not None
            and self.before.data_fingerprint == self.material.fingerprints["data"]
            and self.before.validation_log_loss < self.champion.run.validation_log_loss
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what a program would read, JSON-able."""
        return {
            "data": self.material.card.to_dict(),
            "fingerprints": self.material.fingerprints,
            "runs": [candidate.to_dict() for candidate in self.candidates],
            "comparison": self.comparison.to_dict(),
            "failures": self.failures,
            "champion": self.champion.run.name,
            "export": str(self.export),
        }


def run_experiment(configs: Sequence[RunConfig], artifacts: Path, reporter: Reporter) -> Outcome:
    """Train every configuration on the same material and export the best.

    The champion is the model with the lowest log loss on validation, after calibration: the test split only
    measures, it chooses nothing.
    """
    tracker = Tracker(artifacts)
    with _folder_for_now(artifacts / "cache", "token-ids-") as cache:
        material = prepare(configs[0], cache, reporter)
        reporter.prepared(material)
        # Beside the versions, so that publishing is a rename; the dot keeps TensorFlow Serving from looking inside.
        exports = artifacts / "exports" / material.splits.name
        with _folder_for_now(exports, ".writing-") as aside:
            candidates, failures = make_candidates(configs, material, tracker, aside, reporter)
            champion = min(candidates, key=lambda candidate: candidate.run.validation_log_loss)
            comparison = compare([as_contender(candidate) for candidate in candidates])
            reporter.compared(material, comparison)
            version = publish(champion.saved_model, exports)
    before = tracker.champion(material.splits.name)
    tracker.crown(material.splits.name, champion.registered_version, version)
    for candidate in candidates:
        tracker.attach(candidate.run_id, "comparison.json", comparison.to_dict())
    outcome = Outcome(material, candidates, failures, comparison, champion, version, before)
    reporter.exported(outcome)
    return outcome


def make_candidates(
    configs: Sequence[RunConfig], material: Material, tracker: Tracker, folder: Path, reporter: Reporter
) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """Train every configuration; return those that came out whole, and model name -> reason of the others.

    Raises:
        FloatingPointError, VerificationError: that of the last model, when no model came out whole.
    """
    candidates: list[Candidate] = []
    failures: dict[str, str] = {}
    for config in configs:
        try:
            candidates.append(make_candidate(config, material, tracker, folder / config.model_name, reporter))
        except (FloatingPointError, VerificationError) as error:
            if len(configs) == len(failures) + 1:
                raise
            failures[config.model_name] = str(error)
            reporter.failed(config.model_name, str(error))
    return tuple(candidates), failures


def make_candidate(
    config: RunConfig, material: Material, tracker: Tracker, folder: Path, reporter: Reporter
) -> Candidate:
    """Train one model and keep everything about it in one MLflow run."""
    with tracker.run(experiment=material.splits.name, name=config.model_name) as run:
        log_start(run, config, material)
        trained = train(config, material, _tell_both(run, reporter.epoch))
        reporter.fitted(trained.name, trained.history)
        write_saved_model(trained, folder, material.splits.name)
        verification = verify(folder)
        milliseconds = measure_latency(folder, material.splits.test.texts)
        log_result(run, trained, verification, milliseconds)
        version = run.log_saved_model(
            folder,
            registered_name=material.splits.name,
            example=material.splits.test.texts[0],
            tags={
                "model": trained.name,
                "fingerprint.data": material.fingerprints["data"],
                "validation_log_loss": repr(trained.validation_log_loss),
            },
        )
    return Candidate(trained, run.id, version, folder, verification, milliseconds)


def log_start(run: Run, config: RunConfig, material: Material) -> None:
    """Log what is known before training: configuration, data, fingerprints."""
    run.log_params(config.flat())
    run.set_tags({f"fingerprint.{name}": value for name, value in material.fingerprints.items()})
    run.log_text(config.to_toml(), "config.toml")
    run.log_text("\n".join(material.vocabulary.pieces) + "\n", "vocab.txt")
    run.log_text("\n".join(material.card.lines()) + "\n", "data_card.txt")
    run.log_json(material.card.to_dict(), "data_card.json")
    run.log_splits(material.splits)


def log_result(run: Run, trained: TrainedRun, verification: Verification, milliseconds: float) -> None:
    """Log what came out: metrics with their intervals, figures, the state of the export."""
    evaluation, history = trained.evaluation, trained.history
    metrics = {f"test_{name}": interval.value for name, interval in evaluation.metrics.items()}
    metrics |= {f"test_{name}_low": interval.low for name, interval in evaluation.metrics.items()}
    metrics |= {f"test_{name}_high": interval.high for name, interval in evaluation.metrics.items()}
    run.log_metrics(
        metrics
        | {
            "best_validation_log_loss": trained.validation_log_loss,
            "temperature": trained.temperature,
            "training_seconds": history.seconds,
            "training_cpu_seconds": history.cpu_seconds,
            "milliseconds_per_text": milliseconds,
            "parameters": float(trained.model.count_params()),
            "golden_difference": verification.largest_difference,
        }
    )
    run.set_tags({"training_ended": history.ended, "best_epoch": str(history.best_epoch)})
    run.log_json(evaluation.to_dict(), "evaluation.json")
    log_figures(run, trained)
    accuracy = evaluation.metrics["accuracy"]
    run.describe(
        f"**{trained.name}** on {trained.material.splits.name}: test accuracy {accuracy.value:.3f} "
        f"[{accuracy.low:.3f}, {accuracy.high:.3f}] on {evaluation.count:,} texts, after "
        f"{history.seconds:.0f} s of training ({history.ended}, best epoch {history.best_epoch}).\n\n"
        + "\n".join(f"- {line}" for line in trained.material.card.lines())
    )


def log_figures(run: Run, trained: TrainedRun) -> None:
    """Draw what a person looks at first, from the test split and the history."""
    label_ids, label_names = trained.material.splits.test.label_ids, trained.material.splits.label_names
    probabilities, history = trained.test_probabilities, trained.history
    drawn = {
        "confusion_matrix": figures.confusion_matrix(trained.evaluation),
        "reliability": figures.reliability_diagram(label_ids, softmax(trained.test_logits), probabilities),
        "roc": figures.roc_curves(label_ids, probabilities, label_names),
        "precision_recall": figures.precision_recall_curves(label_ids, probabilities, label_names),
        "training": figures.training_curves(
            {
                "loss": history.loss,
                "validation_loss": history.validation_loss,
                "learning_rate": history.learning_rate,
            }
        ),
    }
    for name, figure in drawn.items():
        run.log_figure(figure, f"figures/{name}.png")


def measure_latency(saved_model: Path, texts: Sequence[str]) -> float:
    """Median milliseconds that the SavedModel takes for one text, once it is warm."""
    predictor = Predictor(saved_model)
    sample = [texts[row % len(texts)] for row in range(LATENCY_TEXTS)]
    for text in sample[: LATENCY_TEXTS // 5]:
        predictor.predict([text])
    return statistics.median(_milliseconds(predictor, text) for text in sample)


def as_contender(candidate: Candidate) -> Contender:
    """Return what the comparison needs of a candidate."""
    run = candidate.run
    return Contender(
        name=run.name,
        evaluation=run.evaluation,
        label_ids=run.material.splits.test.label_ids,
        probabilities=run.test_probabilities[None],
        training_seconds=run.history.seconds,
        milliseconds_per_text=candidate.milliseconds_per_text,
    )


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


def _tell_both(run: Run, listen: Callable[[EpochReport], None]) -> Callable[[EpochReport], None]:
    def tell(report: EpochReport) -> None:
        if report.validation_loss is not None and report.validation_accuracy is not None:
            metrics = {
                "loss": report.loss,
                "validation_log_loss": report.validation_loss,
                "validation_accuracy": report.validation_accuracy,
            }
            run.log_metrics(metrics, step=report.epoch)
        listen(report)

    return tell
