"""What a search tries, which trials it ends early, and which study they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import small_config

from app import search_space, tuning
from app.config import RunConfig
from app.errors import RequestError
from app.fitting import EpochReport
from app.search_space import StretchedTrial, choose, has_ngrams, start_settings, without_ngrams
from app.studies import open_study, subject_of
from models import MODELS

HOUR = 3600.0
FINGERPRINTS = {"data": "d", "split": "s", "vocabulary": "v", "pipeline": "p"}


@pytest.fixture(scope="module")
def config(reviews: Path) -> RunConfig:
    return small_config("linear", reviews)


# Studies


def test_other_material_is_another_study(config: RunConfig, tmp_path: Path):
    one = subject_of(config, "reviews", FINGERPRINTS)
    assert one == subject_of(config.model_copy(update={"tuning_budget_minutes": 3.0}), "reviews", FINGERPRINTS)
    with open_study(tmp_path, one, config) as study:
        study.fail(study.ask(), "made up")
        assert study.others == ()
    names = {one.study_name}
    for part in FINGERPRINTS:
        names.add(subject_of(config, "reviews", {**FINGERPRINTS, part: "other"}).study_name)
    assert len(names) == 5
    with open_study(
        tmp_path, subject_of(config, "reviews", {**FINGERPRINTS, "data": "x", "split": "x"}), config
    ) as new:
        assert new.records() == []
        assert new.others == ("the rows",)
    with open_study(tmp_path, one, config) as study:
        assert [record.state for record in study.records()] == ["failed"]


def test_one_process_at_a_time_works_on_a_study(config: RunConfig, tmp_path: Path):
    subject = subject_of(config, "reviews", {})
    with (
        open_study(tmp_path, subject, config),
        pytest.raises(RequestError, match="searched by another process"),
        open_study(tmp_path, subject, config),
    ):
        pytest.fail("it was opened twice")


def test_other_code_of_training_is_another_study(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = {path.name for path in search_space.TRIAL_CODE}
    assert {"lstm.py", "fitting.py", "optimizer.py", "averaging.py", "fusion.py", "calibration.py"} < names
    source = tmp_path / "optimizer.py"
    monkeypatch.setattr(search_space, "TRIAL_CODE", (*search_space.TRIAL_CODE, source))
    found = []
    for code in ("rate = 1\n", "rate = 1  # a comment\n", "rate = 2\n"):
        source.write_text(code, encoding="utf-8")
        found.append(subject_of(config, "reviews", FINGERPRINTS))
    assert found[0].study_name == found[1].study_name != found[2].study_name
    with open_study(tmp_path, found[0], config) as study:
        study.fail(study.ask(), "made up")
    with open_study(tmp_path, found[2], config) as study:
        assert study.records() == []
        assert study.others == ("the code of the models, their search spaces or training",)


# Pruning


class Reports(list[EpochReport]):
    """A reporter that keeps what it is told of epochs."""

    epoch = list.append


class SilentRun:
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Nothing is kept."""


def epoch_report(epoch: int, validation_loss: float) -> EpochReport:
    return EpochReport("linear", epoch, 4, 10, 10, 0.5, 1.0, validation_loss, 0.5)


def test_a_trial_worse_than_half_of_the_others_is_pruned_but_not_the_start(config: RunConfig, tmp_path: Path):
    with open_study(tmp_path, subject_of(config, "reviews", {}), config) as study:
        start = study.ask()
        watch = tuning._Watch(start, SilentRun(), HOUR, Reports())  # type: ignore[arg-type]
        for epoch in (1, 2, 3):
            watch(epoch_report(epoch, 0.9))
        study.complete(start, 0.9, 0.5)
        for loss in (0.4, 0.5, 0.6):
            trial = study.ask()
            good = tuning._Watch(trial, SilentRun(), HOUR, Reports())  # type: ignore[arg-type]
            for epoch in (1, 2, 3):
                good(epoch_report(epoch, loss))
            study.complete(trial, loss, 0.5)
        bad = tuning._Watch(study.ask(), SilentRun(), HOUR, Reports())  # type: ignore[arg-type]
        bad(epoch_report(1, 0.8))
        with pytest.raises(optuna.TrialPruned):
            bad(epoch_report(2, 0.8))


def test_reports_of_ngrams_beside_an_encoder_end_no_trial_and_are_not_judged(config: RunConfig, tmp_path: Path):
    with open_study(tmp_path, subject_of(config, "reviews", {}), config) as study:
        trial, told = study.ask(), Reports()
        watch = tuning._Watch(trial, SilentRun(), 0.0, told)  # type: ignore[arg-type]
        beside = EpochReport("lstm", 1, 4, 10, 10, 0.5, 1.0, 0.1, 0.9, part="n-grams")
        watch(beside)
        assert [(report.model_name, report.part) for report in told] == [("trial 0", "n-grams")]
        record = study.record(trial.number)
        assert record.epochs == 0
        assert record.seconds > 0
        with pytest.raises(tuning._CutShort):
            watch(epoch_report(1, 0.1))


# Spaces


class Extreme:
    """A trial that always takes one end of what it may choose from."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.names: list[str] = []

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        assert low < high
        assert not log or low > 0
        return self._take(name, (low, high))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        assert low < high
        return self._take(name, (low, high))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, choices)

    def _take(self, name: str, choices: Sequence[Any]) -> Any:
        self.names.append(name)
        return choices[self.end]


@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize("name", MODELS)
def test_both_ends_of_a_model_s_space_are_configurations(name: str, end: int):
    default = MODELS[name].config()
    trial = Extreme(end)
    chosen = choose(trial, default)
    assert type(chosen) is type(default)
    assert {"learning_rate", "weight_decay"} < set(trial.names)
    assert len(set(trial.names)) == len(trial.names)
    assert set(trial.names) == set(start_settings(default))
    assert chosen != default
    assert chosen.epochs == default.epochs


@pytest.mark.parametrize("name", MODELS)
def test_the_start_is_in_the_space(name: str):
    default = MODELS[name].config()
    study = optuna.create_study()
    study.enqueue_trial(start_settings(default))
    assert choose(study.ask(), default) == default  # a value outside would warn


def test_a_space_stretches_to_a_start_outside_it():
    start = MODELS["lstm"].config(learning_rate=0.5, hidden_dim=7, weight_decay=0)  # type: ignore[call-arg]
    assert choose(Extreme(-1), start).model_dump()["hidden_dim"] == 7
    trial = StretchedTrial(Extreme(-1), start)
    assert trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True) == 0.5
    assert trial.suggest_float("weight_decay", 1e-3, 1.0, log=True) == 0  # switched off, and it has no logarithm


@pytest.mark.parametrize("name", MODELS)
def test_trials_leave_out_the_ngrams_beside_an_encoder_and_nothing_else(name: str):
    start = MODELS[name].config()
    alone = without_ngrams(start)
    assert not has_ngrams(alone)
    assert start.model_dump() == alone.model_dump() | ({"wide": True} if has_ngrams(start) else {})
