"""The study of a search, kept in SQLite: what it belongs to, its trials, and what of its budget is used."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from app.config import RunConfig
from app.errors import RequestError
from app.search_space import space_version, start_settings

DATABASE = "studies.db"
RANDOM_TRIALS = 8  # before the sampler follows what was good
TRIALS_TO_JUDGE_BY = 4  # complete ones, before any is pruned
FIRST_JUDGED_EPOCH = 2  # the first is spent in the warm-up of the learning rate

# What a study, or a trial of it, keeps beside what Optuna keeps.
SUBJECT, PARENT_RUN = "subject", "mlflow_run"
IS_START, SECONDS, ACCURACY, RUN = "start", "seconds", "validation_accuracy", "mlflow_run"
ERROR, CUT, AGAIN = "error", "cut", "again"

State = Literal["complete", "pruned", "failed", "cut", "running"]

# What two studies of one model and data set can differ in, by the part of `Subject`.
MEANINGS = {
    "data": "the rows",
    "split": "which row is in which split",
    "vocabulary": "the vocabulary",
    "pipeline": "the pipeline from text to batches",
    "settings": "the settings that the search starts from",
    "space": "the code of the models, their search spaces or training",
}


@dataclass(frozen=True)
class Subject:
    """What figures of a study hold for. Where any of it differs there is another study, so that nothing is mixed.

    `parts`: hashes by the keys of `MEANINGS`.
    """

    data_name: str
    model_name: str
    parts: Mapping[str, str]

    @property
    def prefix(self) -> str:
        """What the names of all studies of this model on a data set of this name begin with."""
        return f"{self.data_name}-{self.model_name}-"

    @property
    def study_name(self) -> str:
        """The study's name: the data's, the model's, and a hash of all parts."""
        return self.prefix + _sha256(dict(self.parts))[:10]


def subject_of(config: RunConfig, data_name: str, fingerprints: Mapping[str, str]) -> Subject:
    """Return what a search from `config` on material with these fingerprints belongs to."""
    # The rows are known by their fingerprint, whatever file they came from.
    settings = config.model_dump(mode="json", exclude={"data", "seeds", "tuning_budget_minutes"})
    own = {"settings": _sha256(settings), "space": space_version()}
    return Subject(data_name, config.model_name, {**fingerprints, **own})


@dataclass(frozen=True)
class TrialRecord:
    """A trial as it ended. `log_loss`: calibrated, on validation, in nats a text; None where it did not come to that.

    state: "complete", "pruned", "failed" (`reason` says why) or "cut" (by the budget, Ctrl-C or a killed process: its
    settings wait to be tried again). epochs: those that ended.
    """

    number: int
    state: State
    is_start: bool
    settings: Mapping[str, Any]
    seconds: float
    epochs: int
    log_loss: float | None
    accuracy: float | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return what a program would read, JSON-able."""
        return {
            "number": self.number,
            "state": self.state,
            "settings": dict(self.settings),
            "seconds": round(self.seconds, 3),
            "validation_log_loss": self.log_loss,
            "validation_accuracy": self.accuracy,
        }


class Study:
    """One search's trials. Made by `open_study`."""

    def __init__(self, study: optuna.Study, storage: optuna.storages.RDBStorage, others: tuple[str, ...]) -> None:
        self._study, self._storage = study, storage
        self.others = others
        """What the newest other study of this model and data set differs in, in words; empty where there is none."""

    @property
    def name(self) -> str:
        """The name in the storage."""
        return self._study.study_name

    @property
    def parent_run(self) -> str | None:
        """The MLflow run that the trials' runs are part of, once there is one."""
        found = self._study.user_attrs.get(PARENT_RUN)
        return None if found is None else str(found)

    @parent_run.setter
    def parent_run(self, run_id: str) -> None:
        self._study.set_user_attr(PARENT_RUN, run_id)

    @property
    def used_seconds(self) -> float:
        """What all trials took, cut ones too."""
        return sum(record.seconds for record in self.records())

    def records(self) -> list[TrialRecord]:
        """Return all trials that were begun, by number."""
        trials = self._study.get_trials(deepcopy=False)
        return [record_of(trial) for trial in trials if trial.state is not TrialState.WAITING]

    def ask(self) -> optuna.Trial:
        """Begin the next trial: one that waits, else one that the sampler chooses."""
        return self._study.ask()

    def complete(self, trial: optuna.Trial, log_loss: float, accuracy: float) -> None:
        """End a trial that came to its figures."""
        trial.set_user_attr(ACCURACY, accuracy)
        self._study.tell(trial, log_loss)

    def prune(self, trial: optuna.Trial) -> None:
        """End a trial that is not worth more epochs."""
        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """End a trial that broke; it is not tried again."""
        trial.set_user_attr(ERROR, reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def cut(self, number: int, why: str) -> None:
        """End a trial that was not let finish, and put its settings in line again, once."""
        trial = self._study.get_trials(deepcopy=False)[number]
        again = [other for other in self._study.get_trials(deepcopy=False) if other.user_attrs.get(AGAIN) == number]
        settings = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        # In line first: a process that is killed between the two finds the trial running, and in line already.
        if settings and not again:
            kept = {IS_START: True} if trial.user_attrs.get(IS_START) else {}
            self._study.enqueue_trial(settings, user_attrs={**kept, AGAIN: number})
        study_id = self._storage.get_study_id_from_name(self.name)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        self._storage.set_trial_user_attr(trial_id, CUT, why)
        self._study.tell(number, state=TrialState.FAIL)

    def take_up_killed(self) -> list[str]:
        """Cut the trials that a killed process left running; return their MLflow runs.

        Only one process works on a study (`open_study`), so that a trial that runs while none was begun here is dead.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            self.cut(trial.number, "killed")
        return [str(trial.user_attrs[RUN]) for trial in running if RUN in trial.user_attrs]

    def record(self, number: int) -> TrialRecord:
        """Return one trial by its number."""
        return record_of(self._study.get_trials(deepcopy=False)[number])


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Read a trial of Optuna."""
    attributes = trial.user_attrs
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "cut" if CUT in attributes else "failed",
    }
    return TrialRecord(
        number=trial.number,
        state=states.get(trial.state, "running"),
        is_start=bool(attributes.get(IS_START)),
        settings=dict(trial.params),
        seconds=float(attributes.get(SECONDS, 0)),
        epochs=trial.last_step or 0,
        log_loss=trial.value if trial.state is TrialState.COMPLETE else None,
        accuracy=attributes.get(ACCURACY),
        reason=str(attributes.get(CUT) or attributes.get(ERROR) or ""),
    )


@contextlib.contextmanager
def open_study(folder: Path, subject: Subject, config: RunConfig) -> Iterator[Study]:
    """Open the study of a subject below `folder`, made with the start as its first trial if it is not there yet.

    Raises:
        RequestError: another process works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{subject.study_name}.lock", f"{subject.study_name} is being searched by another process"):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Studies of other models may be written to at the same time: wait for them.
        with _locked(folder / "studies.lock"):  # two processes that make its tables at once would fail
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{(folder / DATABASE).resolve()}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
        try:
            yield Study(_load(storage, subject, config), storage, _others(storage, subject))
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _load(storage: optuna.storages.RDBStorage, subject: Subject, config: RunConfig) -> optuna.Study:
    study = optuna.create_study(
        storage=storage,
        study_name=subject.study_name,
        load_if_exists=True,
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=TRIALS_TO_JUDGE_BY, n_warmup_steps=FIRST_JUDGED_EPOCH, n_min_trials=TRIALS_TO_JUDGE_BY
        ),
    )
    study.set_user_attr(SUBJECT, dict(subject.parts))
    trials = study.get_trials(deepcopy=False)
    # A stream of its own for each start of the process, else a search that goes on would draw what it has drawn.
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=config.seed + len(trials))
    if not any(trial.user_attrs.get(IS_START) for trial in trials):
        study.enqueue_trial(start_settings(config.model), user_attrs={IS_START: True})
    return study


def _others(storage: optuna.storages.RDBStorage, subject: Subject) -> tuple[str, ...]:
    """What the newest other study of this model and data set differs in."""
    others = [
        study
        for study in optuna.get_all_study_summaries(storage, include_best_trial=False)
        if study.study_name.startswith(subject.prefix) and study.study_name != subject.study_name
    ]
    if not others:
        return ()
    newest = max(others, key=lambda study: study.datetime_start or datetime.min)
    parts = newest.user_attrs.get(SUBJECT, {})
    unlike = [meaning for part, meaning in MEANINGS.items() if parts.get(part) != subject.parts.get(part)]
    # Other rows are split otherwise and give another vocabulary: that goes without saying.
    return (MEANINGS["data"],) if MEANINGS["data"] in unlike else tuple(unlike)


@contextlib.contextmanager
def _locked(path: Path, complaint: str = "") -> Iterator[None]:
    """Hold a lock that goes with the process, however it ends; wait for it where nobody is to be told."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if complaint else 0))
        except BlockingIOError:
            raise RequestError(f"{complaint}: wait for it, or end it") from None
        yield


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
