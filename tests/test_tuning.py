"""`valence tune`: a real search on few texts, its budget, what a killed process leaves, and what comes of the best."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import SMALL, SMALLER, small_config

from app import cli, cli_tune, tuning
from app.cli_tune import parse_budget
from app.config import RunConfig, read_toml, resolve_config
from app.errors import RequestError
from app.fairness import make_lock, refusal
from app.fitting import EpochReport
from app.studies import Study, TrialRecord, subject_of
from app.tracking import Tracker
from app.training import Material, prepare, train
from app.tuning import Budget, Tuned, Validated, spent_minutes, tune, write_best
from models import MODELS

ROOT = Path(__file__).parents[1]
HOUR = 3600.0
TINY = {
    "linear": ("model.epochs=1", "model.num_buckets=256"),
    "lstm": ("model.epochs=1", "model.embedding_dim=8", "model.hidden_dim=4", "model.wide_buckets=256"),
}
Search = Callable[[RunConfig, Budget, "Told"], Tuned]


class Told:
    """Remembers what a search tells; `press_at_step` is when it presses Ctrl-C."""

    def __init__(self, press_at_step: int | None = None) -> None:
        self.tried_numbers: list[int] = []
        self.others: tuple[str, ...] = ()
        self.parts: set[str] = set()
        self._press_at_step = press_at_step

    def doing(self, what: str) -> None:
        """What takes a while is not remembered."""

    def downloaded(self, done: int, total: int | None) -> None:
        raise AssertionError("nothing is downloaded here")

    def opened(self, material: Material, study: Study, budget: Budget) -> None:
        self.others = study.others

    def epoch(self, report: EpochReport) -> None:
        self.parts.add(report.part)
        if report.step == self._press_at_step:
            signal.raise_signal(signal.SIGINT)

    def tried(self, record: TrialRecord, is_best: bool) -> None:
        self.tried_numbers.append(record.number)


class NotLookedAt:
    """In place of the test split: any look at it fails the test."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the search looked at the test split: {name}")


@pytest.fixture(scope="module")
def config(reviews: Path) -> RunConfig:
    return small_config("linear", reviews, *TINY["linear"])


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuning") / "artifacts"


@pytest.fixture(scope="module")
def material(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Material:
    return prepare(config, tmp_path_factory.mktemp("token-ids"), Told())


@pytest.fixture(scope="module")
def search(material: Material, artifacts: Path) -> Search:
    """Run `tune` on the same material each time, with a test split that cannot be looked at."""
    datasets = dataclasses.replace(material.datasets, test=NotLookedAt())  # type: ignore[arg-type]
    blind = dataclasses.replace(material, datasets=datasets)

    def run(config: RunConfig, budget: Budget, told: Told) -> Tuned:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tuning, "prepare", lambda *_: blind)
            return tune(config, artifacts, budget, told)

    return run


@pytest.fixture(scope="module")
def tuned(config: RunConfig, search: Search) -> Tuned:
    return search(config, Budget(HOUR, trials=2), Told())


# The search


def test_the_best_is_at_least_as_good_as_the_start_which_is_the_first_trial(tuned: Tuned, config: RunConfig):
    assert [record.number for record in tuned.records] == [0, 1]
    assert tuned.start == tuned.records[0]
    assert tuned.start is not None
    assert {name: getattr(config.model, name) for name in tuned.start.settings} == dict(tuned.start.settings)
    assert tuned.best is not None
    assert tuned.best.log_loss == min(record.log_loss for record in tuned.complete)  # type: ignore[type-var]
    assert len({tuple(record.settings.values()) for record in tuned.records}) == 2


def test_every_trial_is_a_run_below_one_run_of_the_search(tuned: Tuned, artifacts: Path):
    client = Tracker(artifacts).client
    parent = client.get_run(tuned.parent_run)
    assert (parent.info.run_name, parent.info.status) == ("tune linear", "FINISHED")
    assert parent.data.metrics["search/trials"] == 2
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{tuned.parent_run}'", order_by=["start_time ASC"]
    )
    assert [child.info.run_name for child in children] == ["trial 0", "trial 1"]
    for child, record in zip(children, tuned.records, strict=True):
        assert child.data.tags["state"] == record.state == "complete"
        assert child.data.metrics["best_validation_log_loss"] == pytest.approx(record.log_loss)
        assert child.data.metrics["validation/accuracy"] == pytest.approx(record.accuracy)
        assert "epoch/validation_log_loss" in child.data.metrics
        assert not any(name.startswith("test") for name in child.data.metrics)
        assert float(child.data.params["model.learning_rate"]) == pytest.approx(record.settings["learning_rate"])


def test_a_search_stands_in_no_comparison(tuned: Tuned, artifacts: Path):
    with pytest.raises(RequestError, match="no finished run"):
        Tracker(artifacts).find_runs(experiment="reviews")


def test_the_best_is_what_train_makes_of_its_file(tuned: Tuned, artifacts: Path, material: Material):
    path = write_best(tuned, artifacts)
    assert path == artifacts / "tuned" / "reviews-linear.toml"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    config = resolve_config("linear", read_toml(path))
    assert config == tuned.best_config()
    trained = train(config, material, lambda report: None)
    assert tuned.best is not None
    assert trained.validation_log_loss == pytest.approx(tuned.best.log_loss, rel=1e-3)


@pytest.mark.slow
def test_an_encoder_is_searched_without_the_ngrams_that_its_file_puts_beside_it(
    reviews: Path, artifacts: Path, material: Material, search: Search
):
    config = small_config("lstm", reviews, *TINY["lstm"])
    assert config.model.model_dump()["wide"]
    told = Told()
    tuned = search(config, Budget(HOUR, trials=1), told)
    assert told.parts == {""}  # that of n-grams would be named
    assert tuned.encoder_alone
    assert tuned.start == tuned.best is not None
    assert tuned.study_name == subject_of(config, "reviews", material.fingerprints).study_name  # of the start, wide
    path = write_best(tuned, artifacts)
    assert "without the n-grams" in path.read_text(encoding="utf-8")
    assert resolve_config("lstm", read_toml(path)).model == config.model
    client = Tracker(artifacts).client
    experiment = client.get_experiment_by_name("reviews").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tuned.parent_run}'")
    assert run.data.params["model.wide"] == "False"


def test_a_tuned_and_an_untuned_run_are_told_apart(tuned: Tuned, config: RunConfig):
    fingerprints = {"data": "d", "split": "s", "vocabulary": "v", "pipeline": "p"}
    said = refusal(["tuned", "plain"], [make_lock(fingerprints, one) for one in (tuned.best_config(), config)])
    assert said is not None
    minutes = spent_minutes(tuned.seconds)
    assert f"- the tuning budget: tuned {minutes:g} min, plain 0 min" in said


@pytest.mark.parametrize(("seconds", "minutes"), [(1, 0.1), (95, 1.6), (1200, 20), (1214, 20), (3570, 60)])
def test_two_searches_of_one_budget_are_alike(seconds: float, minutes: float):
    assert spent_minutes(seconds) == minutes


# Going on


def made_up(*figures: float | None) -> Any:
    """In place of `validate`: the log losses that one trial after the other comes to; None: it diverges."""
    left = list(figures)

    def validate(config: RunConfig, material: Material, listen: Any) -> Validated:
        log_loss = left.pop(0)
        if log_loss is None:
            raise FloatingPointError("the loss became nan")
        return Validated(log_loss, accuracy=0.5, temperature=1.0, best_epoch=1)

    return validate


def test_a_search_goes_on_only_where_more_is_asked_for(
    tuned: Tuned, config: RunConfig, search: Search, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tuning, "validate", made_up(0.0, None))
    told = Told()
    same = search(config, Budget(HOUR, trials=2), told)
    assert (same.is_new, same.ended, told.tried_numbers) == (False, "trials", [])
    over = search(config, Budget(tuned.seconds / 2), told)
    assert (over.is_new, over.ended, told.tried_numbers) == (False, "budget", [])
    assert over.best == tuned.best
    more = search(config, Budget(HOUR, trials=4), told)
    assert told.tried_numbers == [2, 3]
    assert more.records[:2] == tuned.records
    assert more.best == more.records[2]
    assert (more.records[3].state, more.records[3].reason) == ("failed", "the loss became nan")
    assert more.parent_run == tuned.parent_run


@pytest.mark.slow
def test_the_budget_and_ctrl_c_end_a_trial_that_is_tried_again(tuned: Tuned, config: RunConfig, search: Search):
    other = config.model_copy(update={"seed": 7})
    told = Told()
    short = search(other, Budget(0.01), told)
    assert told.others == ("the settings that the search starts from",)
    assert short.study_name != tuned.study_name
    assert (short.ended, short.best, [record.state for record in short.records]) == ("budget", None, ["cut"])
    with pytest.raises(RequestError, match=r"no trial of .* is complete"):
        short.best_config()
    stopped = search(other, Budget(HOUR), Told(press_at_step=2))
    assert (stopped.ended, [record.reason for record in stopped.records]) == ("interrupted", ["budget", "interrupted"])
    done = search(other, Budget(HOUR, trials=1), Told())
    assert [record.state for record in done.records] == ["cut", "cut", "complete"]
    assert done.start == done.best == done.records[2]
    assert done.seconds > stopped.seconds > short.seconds > 0
    assert done.tried == 1


def test_ctrl_c_outside_of_fitting_cuts_the_trial_in_mlflow_too(
    config: RunConfig, artifacts: Path, search: Search, monkeypatch: pytest.MonkeyPatch
):
    def pressed(*_: Any) -> Validated:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "validate", pressed)
    stopped = search(config.model_copy(update={"seed": 8}), Budget(HOUR), Told())
    assert stopped.ended == "interrupted"
    (record,) = stopped.records
    assert (record.state, record.reason) == ("cut", "interrupted")
    assert record.seconds > 0
    client = Tracker(artifacts).client
    experiment = client.get_experiment_by_name("reviews").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{stopped.parent_run}'")
    assert (run.info.status, run.data.tags["state"], run.data.tags["reason"]) == ("KILLED", "cut", "interrupted")


@pytest.mark.slow
def test_a_search_killed_with_9_loses_no_finished_trial_and_tries_the_killed_one_again(
    reviews: Path, artifacts: Path, tuned: Tuned, capsys: pytest.CaptureFixture[str]
):
    database = artifacts / "tuning" / "studies.db"
    arguments = ["tune", "linear", *options(reviews), "--seed", "9", "--artifacts", str(artifacts), "--budget", "1h"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "app", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        killed = wait_for_a_second_trial(database, process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = states(database)
    assert before[killed] == "RUNNING"
    finished = [number for number, state in before.items() if state == "COMPLETE"]

    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--trials", str(len(finished) + 1), "--json"])
    written = capsys.readouterr()
    assert not ended.value.code, written.err
    outcome = json.loads(written.out)
    assert f"goes on: {len(before)} trials" in written.err
    assert "optimistic" in written.err
    assert outcome["trials"] == {"complete": len(finished) + 1, "cut": 1}
    assert outcome["best"]["validation_log_loss"] <= outcome["start"]["validation_log_loss"]
    assert read_toml(Path(outcome["config"]))["tuning_budget_minutes"] > 0
    after = settings(database)
    assert after[killed] == after[killed + 1] != after[0]
    client = Tracker(artifacts).client
    experiment = client.get_experiment_by_name("reviews").experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{outcome['run']}'")
    assert {run.info.run_name: run.info.status for run in runs}[f"trial {killed}"] == "KILLED"
    assert len(runs) == len(before) + 1


def options(reviews: Path) -> list[str]:
    """The configuration of the fixture `config`, as the command line takes it."""
    words = [word for setting in (*SMALL, *SMALLER["linear"], *TINY["linear"]) for word in ("--set", setting)]
    columns = ["--text-column", "review", "--label-column", "stars", "--group-column", "film"]
    return ["--data", str(reviews), *columns, *words]


def wait_for_a_second_trial(database: Path, process: subprocess.Popen[bytes]) -> int:
    """The number of a trial that has its settings and its run, and is not done, while one before it is complete."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"the search ended: {process.stderr.read().decode()}")
        if "COMPLETE" in states(database).values():
            begun = "trial_id IN (SELECT trial_id FROM trial_user_attributes WHERE key = 'mlflow_run')"
            for (number,) in rows(database, f"SELECT number FROM trials WHERE state = 'RUNNING' AND {begun}"):
                return int(number)
        time.sleep(0.02)
    pytest.fail("no second trial began")


NEWEST = "study_id = (SELECT MAX(study_id) FROM studies)"


def states(database: Path) -> dict[int, str]:
    """Trial -> its state, in the newest study."""
    return dict(rows(database, f"SELECT number, state FROM trials WHERE {NEWEST} AND state != 'WAITING'"))


def settings(database: Path) -> dict[int, list[tuple[str, float]]]:
    """Trial -> its settings, in the newest study."""
    found: dict[int, list[tuple[str, float]]] = {}
    joined = f"trials JOIN trial_params ON trials.trial_id = trial_params.trial_id WHERE {NEWEST}"
    for number, name, value in rows(database, f"SELECT number, param_name, param_value FROM {joined} ORDER BY 1, 2"):
        found.setdefault(number, []).append((name, value))
    return found


def rows(database: Path, query: str) -> Sequence[Any]:
    """Rows of the storage; none while it is being made."""
    if not database.is_file():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        made = connection.execute("SELECT name FROM sqlite_master WHERE name = 'trial_params'").fetchall()
        return connection.execute(query).fetchall() if made else []
    finally:
        connection.close()


# The budget


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("1.5h", 5400), (" 5 m", 300)])
def test_a_budget_is_a_number_and_a_unit(text: str, seconds: float):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "0m", "-5m", "20 minutes", "1h30m", "nanm"])
def test_another_budget_is_refused_with_what_is_allowed(text: str):
    with pytest.raises(RequestError, match=r"--budget .*: a number above 0 with s, m or h behind it: 90s, 20m, 2h"):
        parse_budget(text)


# The command


def record(number: int, state: Any, reason: str) -> TrialRecord:
    return TrialRecord(number, state, number == 0, {}, 1.0, 0, None, None, reason)


def test_a_used_budget_is_blamed_only_where_it_cut_every_trial(config: RunConfig, capsys: pytest.CaptureFixture[str]):
    cut = record(0, "cut", "budget")
    tuned = Tuned("reviews-linear-1", "reviews", config, (cut,), Budget(90.0), "budget", True, None)
    with pytest.raises(RequestError, match="no trial came to its end in it; a larger one goes on"):
        cli_tune._refuse_if_empty(tuned)
    diverged = dataclasses.replace(tuned, records=(cut, record(1, "failed", "the loss became nan")))
    with pytest.raises(typer.Exit) as ended:
        cli_tune._refuse_if_empty(diverged)
    assert ended.value.exit_code == 1
    assert "trial 1: the loss became nan" in " ".join(capsys.readouterr().err.split())


def test_tune_takes_what_train_takes():
    commands = typer.main.get_command(cli.cli).commands  # type: ignore[attr-defined]
    taken = {
        name: {option for parameter in commands[name].params for option in parameter.opts if option.startswith("--")}
        for name in ("train", "tune")
    }
    assert taken["train"] - {"--gates", "--seeds"} == taken["tune"] - {"--budget", "--trials"}


def test_its_help_names_every_model():
    (argument,) = (one for one in typer.main.get_command(cli.cli).commands["tune"].params if one.name == "model")  # type: ignore[attr-defined]
    assert set(MODELS) <= set(argument.help.replace(",", "").split())
