"""`valence tune`: search a model's settings on validation within a budget of minutes that outlives the process."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import optuna

from app.calibration import fit_temperature, negative_log_likelihood
from app.config import RunConfig
from app.errors import RequestError
from app.fairness import make_lock
from app.fitting import EpochReport, Listener
from app.past_runs import SEARCH
from app.run_records import log_epoch, log_material, log_start
from app.search_space import choose, has_ngrams, with_settings, without_ngrams
from app.studies import IS_START, RUN, SECONDS, Study, TrialRecord, open_study, subject_of
from app.tracking import Run, Tracker
from app.training import Listening, Material, fitted, predict_logits, prepare, settle

NOTE_SECONDS = 5.0  # between two notes of how long a trial has taken: what a killed process may forget

INTERRUPTED = "interrupted"
Ended = Literal["budget", "trials", "interrupted"]


@dataclass(frozen=True)
class Budget:
    """How long a search goes on: seconds of its trials and, where given, their number, over all its starts."""

    seconds: float
    trials: int | None = None

    def ended(self, study: Study) -> Ended | None:
        """Return which of the two is used up."""
        records = study.records()
        if sum(record.seconds for record in records) >= self.seconds:
            return "budget"
        if self.trials is not None and sum(record.state != "cut" for record in records) >= self.trials:
            return "trials"
        return None


class TuneReporter(Listening, Protocol):
    """Who is told how a search goes on."""

    def opened(self, material: Material, study: Study, budget: Budget) -> None:
        """Tell what is searched on, and what is there of it already."""

    def epoch(self, report: EpochReport) -> None:
        """Tell of a step or of an epoch's end."""

    def tried(self, record: TrialRecord, is_best: bool) -> None:
        """Tell how a trial ended."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """What came of a search so far. `start` and `best` are complete trials, None where there is none.

    config: what the search started from. is_new: some trial was run by this command.
    """

    study_name: str
    data_name: str
    config: RunConfig
    records: tuple[TrialRecord, ...]
    budget: Budget
    ended: Ended
    is_new: bool
    parent_run: str | None

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials that came to figures, best first; of equal ones the earlier."""
        complete = [record for record in self.records if record.state == "complete"]
        return sorted(complete, key=_log_loss)

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the lowest calibrated log loss on validation."""
        return next(iter(self.complete), None)

    @property
    def start(self) -> TrialRecord | None:
        """The trial of the settings that the search started from."""
        return next((record for record in self.complete if record.is_start), None)

    @property
    def tried(self) -> int:
        """How many trials there were, those not counted that were cut short and are tried again."""
        return sum(record.state != "cut" for record in self.records)

    @property
    def encoder_alone(self) -> bool:
        """Whether the figures are those of an encoder without the n-grams that `best_config` has beside it."""
        return has_ngrams(self.config.model)

    @property
    def seconds(self) -> float:
        """What all trials took together."""
        return sum(record.seconds for record in self.records)

    @property
    def counts(self) -> dict[str, int]:
        """How many trials ended how."""
        return dict(Counter(record.state for record in self.records))

    def best_config(self) -> RunConfig:
        """Return the best configuration, with the minutes that led to it.

        Raises:
            RequestError: no trial is complete.
        """
        if self.best is None:
            raise RequestError(f"no trial of {self.study_name} is complete: there is nothing to choose from")
        minutes = self.config.tuning_budget_minutes + spent_minutes(self.seconds)
        model = with_settings(self.config.model, self.best.settings)
        return self.config.model_copy(update={"model": model, "tuning_budget_minutes": minutes})

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Return the settings in which the best differs from the start: name -> (start's, best's)."""
        before, after = self.config.model.model_dump(), self.best_config().model.model_dump()
        return {name: (before[name], after[name]) for name in after if before[name] != after[name]}


def spent_minutes(seconds: float) -> float:
    """Minutes as a lock compares them: whole from ten on, so that two searches of one budget are alike; never 0."""
    minutes = seconds / 60
    return float(round(minutes)) if minutes >= 10 else max(0.1, round(minutes, 1))


def tune(config: RunConfig, artifacts: Path, budget: Budget, reporter: TuneReporter) -> Tuned:
    """Search the settings of one model until the budget is used, or go on where an earlier search stopped.

    Trials are judged by their calibrated log loss on the validation split; the test split is not looked at. An encoder
    is searched without the n-grams that its configuration may have beside it.

    Raises:
        RequestError: another process works on this search.
    """
    tracker = Tracker(artifacts)
    (artifacts / "cache").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="token-ids-", dir=artifacts / "cache") as cache:
        material = prepare(config, Path(cache), reporter)
        subject = subject_of(config, material.splits.name, material.fingerprints)
        with open_study(artifacts / "tuning", subject, config) as study:
            for run_id in study.take_up_killed():
                tracker.end(run_id, "KILLED")
            reporter.opened(material, study, budget)
            before = len(study.records())
            ended = budget.ended(study) or _Search(config, material, study, tracker, reporter).run_until(budget)
            records = tuple(study.records())
            is_new = len(records) > before
            return Tuned(study.name, material.splits.name, config, records, budget, ended, is_new, study.parent_run)


def write_best(tuned: Tuned, artifacts: Path) -> Path:
    """Write the best configuration as a file that `train --config` reads, whole or not at all; return where it is."""
    best, start = tuned.best, tuned.start
    config = tuned.best_config()
    assert best is not None
    assert best.log_loss is not None
    of_start = f", that of the start {start.log_loss:.4f}" if start and start.log_loss is not None else ""
    alone = "# Both are those of the encoder without the n-grams beside it.\n" if tuned.encoder_alone else ""
    comment = (
        f"# Trial {best.number} ({tuned.tried} in all) of the study {tuned.study_name}: log loss on validation "
        f"{best.log_loss:.4f}{of_start}.\n"
        f"{alone}"
        "# It was chosen for that figure, which is therefore optimistic.\n"
    )
    path = artifacts / "tuned" / f"{tuned.data_name}-{config.model_name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(comment + config.to_toml(), encoding="utf-8")
    part.replace(path)
    return path


class _CutShort(Exception):  # noqa: N818 - no error: the budget is used, or somebody pressed Ctrl-C
    """A trial is not let finish; its settings are tried again when the search goes on."""


@dataclass(frozen=True, eq=False)
class _Search:
    config: RunConfig
    material: Material
    study: Study
    tracker: Tracker
    reporter: TuneReporter

    def run_until(self, budget: Budget) -> Ended:
        """Try until the budget is used or somebody presses Ctrl-C, in one MLflow run however often it is begun."""
        known = self.study.parent_run
        known = known if known and self.tracker.has_run(known) else None
        name = f"tune {self.config.model_name}"
        with self.tracker.run(self.material.splits.name, name, run_id=known) as run:
            if known is None:
                self._begin(run)
            ended: Ended | None = None
            with _interrupted_between_trials() as interrupted:
                while not (ended := budget.ended(self.study)) and self._try_one(budget):
                    continue
            self._note(run)
            return "interrupted" if interrupted or ended is None else ended

    def _begin(self, run: Run) -> None:
        run.set_tags({SEARCH: self.study.name})
        log_start(run, settle(self.config, self.material), self.material)
        log_material(run, self.material)
        self.study.parent_run = run.id

    def _note(self, run: Run) -> None:
        records = self.study.records()
        complete = sorted((record for record in records if record.state == "complete"), key=_log_loss)
        metrics = {"search/trials": len(records), "search/minutes": sum(record.seconds for record in records) / 60}
        for title, found in (("best", complete), ("start", [record for record in complete if record.is_start])):
            if found:
                metrics[f"search/{title}_validation_log_loss"] = _log_loss(found[0])
                metrics[f"search/{title}_validation_accuracy"] = found[0].accuracy or 0.0
        run.log_metrics(metrics)

    def _try_one(self, budget: Budget) -> bool:
        """Run one trial and keep it in an MLflow run of its own; return whether the search may go on."""
        left = budget.seconds - self.study.used_seconds
        trial = self.study.ask()
        known = min((record.log_loss for record in self.study.records() if record.log_loss is not None), default=np.inf)
        interrupted = False
        try:
            interrupted = self._in_a_run(trial, left)
        except KeyboardInterrupt:  # it fell on the writing down of a trial's end, or was pressed twice
            interrupted = True
            if self.study.record(trial.number).state == "running":
                self.study.cut(trial.number, INTERRUPTED)
        except BaseException as error:
            if self.study.record(trial.number).state == "running":
                self.study.fail(trial, f"{type(error).__name__}: {error}")
            raise
        record = self.study.record(trial.number)
        self.reporter.tried(record, is_best=record.log_loss is not None and record.log_loss < known)
        return not interrupted and record.reason != INTERRUPTED

    def _in_a_run(self, trial: optuna.Trial, left: float) -> bool:
        """Run a trial, end it in the study, and keep it in an MLflow run whose status and tag `state` say how.

        Return whether Ctrl-C was pressed outside of `fit`, which takes what is pressed inside.
        """
        model = without_ngrams(choose(trial, self.config.model))
        config = settle(self.config.model_copy(update={"model": model, "seeds": 1}), self.material)
        interrupted = False
        with self.tracker.run(self.material.splits.name, f"trial {trial.number}", nested=True) as run:
            trial.set_user_attr(RUN, run.id)
            watch = _Watch(trial, run, left, self.reporter)
            try:
                run.log_params(config.flat())
                run.set_tags({"model": config.model_name, **make_lock(self.material.fingerprints, config).to_tags()})
                found = validate(config, self.material, watch)
                watch.note()
                run.log_metrics({**found.metrics(), "training_seconds": watch.elapsed})
                self.study.complete(trial, found.log_loss, found.accuracy)
            except (optuna.TrialPruned, FloatingPointError, _CutShort, KeyboardInterrupt) as ended:
                interrupted = isinstance(ended, KeyboardInterrupt)
                if self.study.record(trial.number).state == "running":  # else Ctrl-C came right behind its end
                    watch.note()
                    self._end_early(trial, ended)
            record = self.study.record(trial.number)
            run.set_tags({"state": record.state, **({"reason": record.reason} if record.reason else {})})
        if record.state in ("failed", "cut"):
            self.tracker.end(run.id, "FAILED" if record.state == "failed" else "KILLED")
        return interrupted

    def _end_early(self, trial: optuna.Trial, ended: BaseException) -> None:
        if isinstance(ended, optuna.TrialPruned):
            self.study.prune(trial)
        elif isinstance(ended, _CutShort):
            self.study.cut(trial.number, str(ended))
        elif isinstance(ended, KeyboardInterrupt):
            self.study.cut(trial.number, INTERRUPTED)
        else:
            self.study.fail(trial, str(ended))


class _Watch:
    """Follows one trial from step to step: writes down its time, prunes it, and ends it when the budget is used."""

    def __init__(self, trial: optuna.Trial, run: Run, left: float, reporter: TuneReporter) -> None:
        self._trial, self._run, self._left, self._reporter = trial, run, left, reporter
        self._started, self._noted = time.perf_counter(), 0.0
        self._judged = IS_START not in trial.user_attrs  # what all are held against is not pruned

    @property
    def elapsed(self) -> float:
        """Seconds since the trial began to be built."""
        return time.perf_counter() - self._started

    def note(self) -> None:
        """Write down how long the trial has taken."""
        self._noted = self.elapsed
        self._trial.set_user_attr(SECONDS, self._noted)

    def __call__(self, report: EpochReport) -> None:
        """Take a step's or an epoch's report; raise what ends the trial."""
        if self.elapsed - self._noted >= NOTE_SECONDS or report.validation_loss is not None:
            self.note()
        self._reporter.epoch(dataclasses.replace(report, model_name=f"trial {self._trial.number}"))
        if report.part:
            return  # of what stands beside the network that is judged, which has ended its last epoch
        if report.validation_loss is not None:
            log_epoch(self._run, report)
            self._trial.report(report.validation_loss, report.epoch)
            if report.epoch == report.epochs:
                return  # what is left to do takes no longer than an epoch
            if self._judged and self._trial.should_prune():
                raise optuna.TrialPruned
        if self.elapsed >= self._left:
            raise _CutShort("budget")


@dataclass(frozen=True)
class Validated:
    """A trained model's figures on the validation split, after calibration; `log_loss` in nats a text."""

    log_loss: float
    accuracy: float
    temperature: float
    best_epoch: int

    def metrics(self) -> dict[str, float]:
        """Return them under the names they have in MLflow."""
        return {
            "best_validation_log_loss": self.log_loss,
            "validation/accuracy": self.accuracy,
            "temperature": self.temperature,
            "best_epoch": float(self.best_epoch),
        }


def validate(config: RunConfig, material: Material, listen: Listener) -> Validated:
    """Do what `app.training.train` does up to its look at the test split.

    Raises:
        FloatingPointError: as `fit` and `predict_logits`.
    """
    gc.collect()  # the network and the graphs of the trial before hold each other
    validation = material.datasets.validation
    model, history = fitted(config, material, listen)
    if history.ended == "interrupted":
        raise _CutShort(INTERRUPTED)
    logits = predict_logits(model, validation)
    temperature = fit_temperature(logits, validation.label_ids)
    return Validated(
        log_loss=negative_log_likelihood(logits, validation.label_ids, temperature),
        accuracy=float((logits.argmax(axis=1) == validation.label_ids).mean()),
        temperature=temperature,
        best_epoch=history.best_epoch,
    )


@contextlib.contextmanager
def _interrupted_between_trials() -> Iterator[list[KeyboardInterrupt]]:
    """Take a Ctrl-C that falls between two trials as the end of the search; what is yielded is then not empty."""
    pressed: list[KeyboardInterrupt] = []
    try:
        yield pressed
    except KeyboardInterrupt as error:
        pressed.append(error)


def _log_loss(record: TrialRecord) -> float:
    assert record.log_loss is not None
    return record.log_loss
