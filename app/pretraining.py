"""One pretraining, from texts without labels to weights and a vocabulary that `train --init` starts from."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from app.initial_weights import VECTORS, Facts, Pretrained, Start, read_start
from app.language_fitting import StepReport, fit_language_model
from app.piece_vectors import learn_vectors
from app.pretrained_runs import EXPERIMENT, FOLDER, facts_of
from app.pretraining_config import PretrainingConfig
from app.tracking import Run, Tracker
from app.wording import duration, listing
from app.workshop import Workshop
from data.piece_windows import EncodedTexts, encode_texts
from data.splits import load_splits
from data.unlabelled import UnlabelledTexts, leave_out, load_unlabelled, text_hashes
from data.vocabulary import Vocabulary, learn_vocabulary
from models.language_modelling import EMBEDDING

LOG_STEPS = 50  # steps over which the loss that MLflow keeps is averaged


class Reporter(Protocol):
    """Who is told how a pretraining goes on."""

    def doing(self, what: str) -> None:
        """Tell what takes a while now."""

    def downloaded(self, done: int, total: int | None) -> None:
        """Tell how many bytes of a download have come, of how many."""

    def line(self, text: str) -> None:
        """Tell something that stays."""

    def step(self, kind: str, report: StepReport) -> None:
        """Tell of a step."""


@dataclass(frozen=True)
class Outcome:
    """What a pretraining came to; `again`: it was finished before, and nothing was done now."""

    run_id: str
    name: str
    facts: Facts
    again: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what a program would read, JSON-able."""
        return {"run_id": self.run_id, "name": self.name, "learned": str(self.facts), **vars(self.facts)}


@dataclass(frozen=True, eq=False)
class Material:
    """What is learned from: the texts, their vocabulary, the texts as pieces, and what the weights start from."""

    texts: UnlabelledTexts
    vocabulary: Vocabulary
    pieces: EncodedTexts
    start: Start


def pretrain(config: PretrainingConfig, artifacts: Path, reporter: Reporter) -> Outcome:
    """Learn from texts without labels, and keep what came of it as a run; go on where an earlier start was killed."""
    texts = read_texts(config, reporter)
    workshop = Workshop(artifacts / "checkpoints", config, texts)
    tracker = Tracker(artifacts)
    if (past := workshop.finished) and tracker.has_run(past["run_id"]):
        return Outcome(past["run_id"], past["name"], Facts(**past["facts"]), again=True)
    material = prepare(config, texts, workshop, reporter)
    before = [str(one) for one in facts_of(config.init)]
    facts = Facts(config.kind, texts.name, len(texts), listing(before) if before else "")
    name = config.name or f"{config.kind}-{texts.name}"
    with tracker.run(EXPERIMENT, name, run_id=_run_to_go_on_with(workshop, tracker)) as run:
        log_start(run, config, material)
        workshop.settle(run_id=run.id)
        weights, objective = learn(config, material, workshop, run, reporter)
        pretrained = Pretrained(facts, material.vocabulary, hashes_of(material), weights)
        log_result(run, pretrained, objective)
    workshop.finish({"run_id": run.id, "name": name, "facts": vars(facts)})
    return Outcome(run.id, name, facts)


def read_texts(config: PretrainingConfig, reporter: Reporter) -> UnlabelledTexts:
    """Read the texts, without those that stand in the validation or test split of a task that is left out."""
    reporter.doing("reading texts")
    texts = load_unlabelled(config.text, reporter.downloaded)
    if config.leave_out:
        texts = leave_out(texts, [load_splits(data, reporter.downloaded) for data in config.leave_out])
    left_out = f", {texts.left_out:,} left out as validation or test texts" if config.leave_out else ""
    blank = f", {texts.blank:,} blank" if texts.blank else ""
    reporter.line(f"{texts.name}: {len(texts):,} texts of {texts.read:,} in {texts.origin}{blank}{left_out}")
    return texts


def prepare(config: PretrainingConfig, texts: UnlabelledTexts, workshop: Workshop, reporter: Reporter) -> Material:
    """Learn the vocabulary, or take that of the run to start from, and cut the texts into pieces."""
    start = read_start(config.init)
    reporter.doing("learning the vocabulary, tokenising")
    vocabulary = workshop.vocabulary(lambda: start.vocabulary or learn_vocabulary(texts.texts, config.vocabulary))
    pieces = workshop.pieces(lambda: encode_texts(texts.texts, vocabulary))
    reporter.line(f"{len(vocabulary):,} pieces in the vocabulary, {len(pieces.flat):,} in the texts")
    return Material(texts, vocabulary, pieces, start)


def learn(
    config: PretrainingConfig, material: Material, workshop: Workshop, run: Run, reporter: Reporter
) -> tuple[Mapping[str, np.ndarray], str]:
    """Return the weights by layer, and the objective they were learned by."""
    size = len(material.vocabulary)
    if config.kind == VECTORS:
        reporter.doing("learning vectors")

        def after_epoch(epoch: int, seconds: float) -> None:
            run.log_metrics({"pretraining/seconds": seconds}, step=epoch)
            reporter.line(f"epoch {epoch} of {config.vectors.epochs}   {duration(seconds)}")

        table = learn_vectors(
            material.pieces,
            config.vectors,
            size,
            workshop,
            seed=config.seed,
            budget_seconds=60 * config.budget_minutes,
            listen=after_epoch,
        )
        return {f"{EMBEDDING}/0": table}, "skip-gram"
    logger = _StepLogger(run, config.kind, reporter)
    return fit_language_model(config, material.pieces, size, material.start, workshop, logger)


def hashes_of(material: Material) -> np.ndarray:
    """Return the hashes of every text that the weights have learned from, in this run and those it started from."""
    before = [one.hashes for one in material.start.pretrained]
    return np.unique(np.concatenate([text_hashes(material.texts.texts), *before]))


def log_start(run: Run, config: PretrainingConfig, material: Material) -> None:
    """Log what is known before anything is learned."""
    texts = material.texts
    run.log_params({**config.flat(), "text.name": texts.name, "text.origin": texts.origin})
    run.set_tags({"kind": config.kind, "fingerprint.text": texts.fingerprint})
    counts = {"texts": len(texts), "texts_left_out": texts.left_out, "pieces": len(material.pieces.flat)}
    run.log_metrics({name: float(count) for name, count in counts.items()})
    run.log_text(config.to_toml(), "config.toml")


def log_result(run: Run, pretrained: Pretrained, objective: str) -> None:
    """Keep the weights; the vectors of pieces once more by themselves, for other programs."""
    run.set_tags({"objective": objective})
    run.describe(f"{pretrained.facts}. `python train.py --init {run.id}` starts from it.")
    with tempfile.TemporaryDirectory() as folder:
        pretrained.save(Path(folder))
        np.save(Path(folder) / "vectors.npy", pretrained.weights[f"{EMBEDDING}/0"])
        pretrained.vocabulary.save(Path(folder) / "vectors.words.txt")
        run.log_folder(Path(folder), FOLDER)


class _StepLogger:
    """Sends each step to the reporter, and means over steps and the held-out loss to MLflow."""

    def __init__(self, run: Run, kind: str, reporter: Reporter) -> None:
        self._run, self._kind, self._reporter = run, kind, reporter
        self._losses: list[float] = []

    def __call__(self, report: StepReport) -> None:
        self._losses.append(report.loss)
        self._reporter.step(self._kind, report)
        metrics = {}
        if len(self._losses) == LOG_STEPS or report.held_out_loss is not None:
            metrics["pretraining/loss"] = sum(self._losses) / len(self._losses)
            self._losses.clear()
        if report.held_out_loss is not None:
            metrics |= {"pretraining/held_out_loss": report.held_out_loss, "pretraining/seconds": report.elapsed}
        if metrics:
            self._run.log_metrics(metrics, step=report.step)


def _run_to_go_on_with(workshop: Workshop, tracker: Tracker) -> str | None:
    run_id = workshop.plan.get("run_id")
    return run_id if run_id and tracker.has_run(run_id) else None
