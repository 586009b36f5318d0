"""What is written down of a run: parameters, metrics, figures, answers and the description people read first."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from app import figures
from app.answer_files import write_answers
from app.calibration import softmax
from app.config import RunConfig
from app.fairness import make_lock, starts
from app.fitting import EpochReport
from app.metrics import Evaluation
from app.seed_notes import metric_spreads
from app.serving.verification import Verification
from app.tracking import Run
from app.training import Material, TrainedRun

ANSWERS = "answers"
"""The folder among a run's artifacts that `app.answer_files` writes and reads."""


def log_material(run: Run, material: Material) -> None:
    """Log what all models of a command learn from."""
    run.log_text("\n".join(material.vocabulary.pieces) + "\n", "vocab.txt")
    run.log_text("\n".join(material.card.lines()) + "\n", "data_card.txt")
    run.log_json(material.card.to_dict(), "data_card.json")


def log_start(run: Run, config: RunConfig, material: Material) -> None:
    """Log what is known before training: configuration, inputs, fingerprints."""
    params = config.flat()
    if config.seeds > 1:  # each of them is the seed of a run of its own
        del params["seed"]
    run.log_params(params)
    run.set_tags({"model": config.model_name, **make_lock(material.fingerprints, config).to_tags()})
    for split, count in material.seen.items():
        run.log_metrics({f"outside_text/{split}_texts_seen": float(count)})
    run.log_text(config.to_toml(), "config.toml")
    run.log_splits(material.splits)


def log_epoch(run: Run, report: EpochReport) -> None:
    """Log the figures of an epoch that has ended; of a step nothing, and nothing of what stands beside the encoder."""
    if not report.part and report.validation_loss is not None and report.validation_accuracy is not None:
        metrics = {
            "epoch/loss": report.loss,
            "epoch/validation_log_loss": report.validation_loss,
            "epoch/validation_accuracy": report.validation_accuracy,
        }
        run.log_metrics(metrics, step=report.epoch)


def log_trained(run: Run, trained: TrainedRun, title: str) -> None:
    """Log what one training came to: metrics with their intervals, figures, and the answers to every text."""
    history = trained.history
    run.log_metrics(
        test_metrics(trained.evaluation)
        | {
            "best_validation_log_loss": trained.validation_log_loss,
            "temperature": trained.temperature,
            "training_seconds": history.seconds,
            "training_cpu_seconds": history.cpu_seconds,
            "parameters": float(trained.model.count_params()),
        }
    )
    if trained.encoder_evaluation is not None:
        run.log_metrics(
            {f"test_encoder/{name}": found.value for name, found in trained.encoder_evaluation.metrics.items()}
        )
    run.set_tags({"training_ended": history.ended, "best_epoch": str(history.best_epoch)})
    run.log_json(trained.evaluation.to_dict(), "evaluation.json")
    log_figures(run, trained)
    log_answers(run, trained, title)
    run.describe(description(trained.material, title, trained.evaluation, training_facts(trained)))


def log_seeds(run: Run, seeds: Sequence[TrainedRun], best: TrainedRun, evaluation: Evaluation) -> None:
    """Log what several seeds came to together: means under the names of a single run's metrics, and their spread.

    Figures and answers are those of `best`, whose SavedModel the run keeps; `evaluation` is that of all of them.
    """
    metrics = test_metrics(evaluation)
    for name, found in metric_spreads([one.evaluation for one in seeds]).items():
        metrics |= {
            f"test_seeds/{name}_std": found.deviation,
            f"test_seeds/{name}_min": found.low,
            f"test_seeds/{name}_max": found.high,
        }
    run.log_metrics(
        metrics
        | {
            "best_validation_log_loss": _mean([one.validation_log_loss for one in seeds]),
            "training_seconds": _mean([one.history.seconds for one in seeds]),
            "training_cpu_seconds": _mean([one.history.cpu_seconds for one in seeds]),
            "parameters": float(best.model.count_params()),
        }
    )
    run.set_tags({"exported_seed": str(best.config.seed)})
    run.log_json(evaluation.to_dict(), "evaluation.json")
    log_figures(run, best)
    log_answers(run, best, best.name)


def log_export(run: Run, verification: Verification, milliseconds: float) -> None:
    """Log the state of the SavedModel."""
    run.log_metrics({"milliseconds_per_text": milliseconds, "golden_difference": verification.largest_difference})


def test_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return an evaluation as metrics: `test/accuracy` and the ends of its interval, and so on.

    MLflow draws what stands before a slash as a section, in the order of the alphabet: curves, figures, their ends.
    """
    metrics: dict[str, float] = {}
    for name, interval in evaluation.metrics.items():
        metrics |= {
            f"test/{name}": interval.value,
            f"test_interval/{name}_low": interval.low,
            f"test_interval/{name}_high": interval.high,
        }
    return metrics


def log_answers(run: Run, trained: TrainedRun, title: str) -> None:
    """Keep the answers to every validation and test text, for comparisons with runs of other commands."""
    lock = make_lock(trained.material.fingerprints, trained.config)
    with tempfile.TemporaryDirectory() as folder:
        write_answers(Path(folder), trained.answers(title), lock.to_dict())
        run.log_folder(Path(folder), ANSWERS)


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


def description(material: Material, title: str, evaluation: Evaluation, facts: str, verdict: Sequence[str] = ()) -> str:
    """Return the Markdown that stands above a run: the verdict once there is one, this run's accuracy, the data card.

    `facts` ends the sentence on the accuracy: how long training took, or how many seeds there were.
    """
    accuracy = evaluation.metrics["accuracy"]
    paragraphs = [
        *([" ".join(verdict)] if verdict else []),
        f"**{title}** on {material.splits.name}: test accuracy {accuracy.value:.3f} "
        f"[{accuracy.low:.3f}, {accuracy.high:.3f}] on {evaluation.count:,} texts, {facts}",
        "\n".join(f"- {line}" for line in material.card.lines()),
    ]
    return "\n\n".join(paragraphs)


def training_facts(trained: TrainedRun) -> str:
    """Return how one training went, for `description`."""
    history = trained.history
    facts = f"after {history.seconds:.0f} s of training ({history.ended}, best epoch {history.best_epoch})."
    return " ".join([facts, *start_notes({trained.name: trained.config}, trained.material)])


def start_notes(configs: Mapping[str, RunConfig], material: Material) -> list[str]:
    """Return what models, by name, started from, if not from random weights, and what of the splits that text held."""
    locks = [make_lock(material.fingerprints, config) for config in configs.values()]
    said = starts(list(configs), locks)
    if said is None:
        return []
    notes = [f"Text from outside the training split: {said}."]
    if seen := material.seen:
        notes.append(f"That text held {seen['test']:,} of the test texts and {seen['validation']:,} of validation.")
    return notes


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
