"""Promotion in a real store with real SavedModels: what moves, what a refusal leaves, and what a crash leaves."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from app import promotion, wording
from app.cli import main
from app.errors import RequestError
from app.export import publish
from app.gate_figures import accuracy_difference
from app.gates import GATES, Figures, Gates, Latency, Parity
from app.promotion import crown_winner, promote, roll_back
from app.registry import CHAMPION, PREVIOUS, RegisteredVersion
from app.serving.versions import version_folders
from app.statistics import Interval
from app.tracking import Tracker, TrackingError
from app.version_journal import Intent, open_journal

NAME = "reviews"
GOOD = Figures(40, Interval(0.0, -0.005, 0.005), 0.05, 0.04, (), Latency(1.0, 1.0), Parity(24, 1e-7, None))
BAD = dataclasses.replace(GOOD, accuracy_difference=Interval(-0.2, -0.3, -0.1), expected_calibration_error=0.4)


def good(*_) -> Figures:
    return GOOD


def bad(*_) -> Figures:
    return BAD


def sound(_: Path) -> Parity:
    return GOOD.parity


@dataclass(frozen=True)
class Store:
    """A copy of the experiment's store and exports, whose champion is its version `champion`."""

    tracker: Tracker
    artifacts: Path
    champion: RegisteredVersion
    others: list[RegisteredVersion]

    @property
    def exports(self) -> Path:
        return self.artifacts / "exports"

    @property
    def base(self) -> Path:
        return self.exports / NAME

    def state(self) -> tuple:
        """All that a refused or broken promotion must leave as it was."""
        aliases = {alias: self.alias(alias) for alias in (CHAMPION, PREVIOUS)}
        tags = {one.version: dict(one.tags) for one in self.tracker.client.search_model_versions(f"name = '{NAME}'")}
        return aliases, tags, sorted(path.name for path in self.base.iterdir())

    def alias(self, alias: str) -> str | None:
        found = self.tracker.aliased_version(NAME, alias)
        return found.version if found else None

    def promote(self, version: RegisteredVersion, **options) -> promotion.Promotion:
        return promote(self.tracker, version.run_id, self.exports, Gates(), **{"measure": good, **options})

    def is_served(self, version: RegisteredVersion, folder: Path) -> bool:
        """Whether the SavedModel that servers take up is that of the version."""
        logged = self.tracker.download_saved_model(NAME, version.version, folder)
        served = next(iter(version_folders(self.base).values()))
        return (served / "saved_model.pb").read_bytes() == (logged / "saved_model.pb").read_bytes()


@pytest.fixture
def store(experiment, tmp_path: Path) -> Store:
    artifacts = tmp_path / "artifacts"
    shutil.copytree(experiment.outcome.export, artifacts / "exports" / NAME / "1")
    shutil.copy(experiment.artifacts / "mlflow.db", artifacts / "mlflow.db")
    tracker = Tracker(artifacts)
    run_ids = {candidate.run_id: candidate for candidate in experiment.outcome.candidates}
    versions = [tracker.registered_version(run_id) for run_id in run_ids]
    (champion,) = (one for one in versions if one.run_id == experiment.outcome.best.run_id)
    tracker.set_alias(NAME, CHAMPION, champion.version)  # another test may have trained on
    return Store(tracker, artifacts, champion, [one for one in versions if one != champion])


def test_a_model_that_passes_becomes_champion_and_is_what_is_served(store: Store, tmp_path: Path):
    challenger = store.others[0]
    done = store.promote(challenger)
    assert done.moved
    assert done.export == store.base / "2"
    assert (store.alias(CHAMPION), store.alias(PREVIOUS)) == (challenger.version, store.champion.version)
    assert store.is_served(challenger, tmp_path)
    assert store.tracker.aliased_version(NAME, CHAMPION).tags["export"] == str(done.export)
    assert sorted(path.name for path in store.base.iterdir()) == ["1", "2"]
    assert done.to_dict()["champion_before"] == store.champion.version


def test_a_refused_model_changes_nothing(store: Store):
    before = store.state()
    done = store.promote(store.others[0], measure=bad)
    assert [gate.name for gate in done.refused_by] == ["accuracy", "calibration"]
    assert len(done.gates) == 5
    assert not done.moved
    assert done.export is None
    assert store.state() == before


def test_a_dry_run_changes_nothing(store: Store):
    before = store.state()
    done = store.promote(store.others[0], dry_run=True)
    assert not done.refused_by
    assert not done.moved
    assert store.state() == before


def test_going_back_serves_the_champion_before_and_going_back_twice_is_going_forth(store: Store, tmp_path: Path):
    challenger = store.others[0]
    store.promote(challenger)
    back = roll_back(store.tracker, None, store.exports, check=sound)
    assert back.moved
    assert back.export == store.base / "3"
    assert (store.alias(CHAMPION), store.alias(PREVIOUS)) == (store.champion.version, challenger.version)
    assert store.is_served(store.champion, tmp_path)
    roll_back(store.tracker, NAME, store.exports, check=sound)
    assert store.alias(CHAMPION) == challenger.version
    assert store.is_served(challenger, tmp_path)


def test_a_broken_previous_version_is_not_gone_back_to(store: Store):
    store.promote(store.others[0])
    before = store.state()
    done = roll_back(store.tracker, NAME, store.exports, check=lambda _: Parity(0, np.inf, "cannot be loaded"))
    assert [gate.reason for gate in done.refused_by] == ["cannot be loaded"]
    assert store.state() == before


def test_there_must_be_something_to_go_back_to(store: Store):
    for name in (None, NAME):
        with pytest.raises(RequestError, match=r"no previous version|no model has a previous version"):
            roll_back(store.tracker, name, store.exports)
    store.tracker.set_alias(NAME, PREVIOUS, store.champion.version)
    with pytest.raises(RequestError, match="no previous version"):
        roll_back(store.tracker, NAME, store.exports)


def test_one_of_several_models_has_to_be_named(store: Store):
    store.tracker.set_alias(NAME, PREVIOUS, store.others[0].version)
    store.tracker.client.create_registered_model("films")
    source = store.tracker.client.get_model_version(NAME, store.champion.version)
    store.tracker.client.create_model_version("films", source.source, source.run_id)
    store.tracker.set_alias("films", PREVIOUS, "1")
    with pytest.raises(RequestError, match="name one of films, reviews"):
        roll_back(store.tracker, None, store.exports)


# What is refused before anything is measured


def never(*_) -> Figures:
    raise AssertionError("nothing should have been measured")


def test_an_unknown_run_is_refused(store: Store):
    for reference, message in (("abcd", "has no run abcd"), ("lstm", "names no run"), ("reviews/99", "no version 99")):
        with pytest.raises(RequestError, match=message):
            promote(store.tracker, reference, store.exports, Gates(), measure=never)


@pytest.mark.parametrize("form", ["{run.run_id:.8}", "reviews/{run.version}", "reviews@next"])
def test_a_run_may_be_named_in_short(store: Store, form: str):
    challenger = store.others[0]
    store.tracker.set_alias(NAME, "next", challenger.version)
    assert promote(store.tracker, form.format(run=challenger), store.exports, Gates(), measure=good).moved
    assert store.alias(CHAMPION) == challenger.version


def test_a_run_that_registered_nothing_is_refused(store: Store):
    with store.tracker.run(NAME, "lonely") as run:
        pass
    with pytest.raises(RequestError, match=r"\(lonely\) registered no model") as refused:
        promote(store.tracker, run.id, store.exports, Gates(), measure=never)
    assert f"{store.champion.run_id} ({store.champion})" in str(refused.value)
    store.tracker.client.set_tag(run.id, "mlflow.parentRunId", "the-parent")
    with pytest.raises(RequestError, match="The run it is part of is the-parent"):
        promote(store.tracker, run.id, store.exports, Gates(), measure=never)


def test_the_champion_itself_is_refused(store: Store):
    with pytest.raises(RequestError, match="is the champion already"):
        store.promote(store.champion, measure=never)


@pytest.mark.parametrize("tag", ["fingerprint.data", "fingerprint.split"])
def test_a_model_of_other_data_is_refused_by_what_differs(store: Store, tag: str):
    challenger = store.others[0]
    store.tracker.tag_version(NAME, challenger.version, tag, "0123456789abcdef")
    before = store.state()
    with pytest.raises(RequestError, match=f"not on the same data: {tag} \\(01234567 against "):
        store.promote(challenger, measure=never)
    assert store.state() == before


# What `train` does with its best model


def test_the_first_model_becomes_champion_without_gates(store: Store):
    store.tracker.set_alias(NAME, CHAMPION, None)
    done = crown_winner(store.tracker, store.others[0].run_id, store.exports, Gates(), measure=never)
    assert done.moved
    assert done.champion is None
    assert store.alias(CHAMPION) == store.others[0].version
    assert store.alias(PREVIOUS) is None


def test_a_champion_of_other_data_gives_way(store: Store):
    store.tracker.tag_version(NAME, store.champion.version, "fingerprint.data", "other")
    assert crown_winner(store.tracker, store.others[0].run_id, store.exports, Gates(), measure=never).moved
    assert store.alias(PREVIOUS) == store.champion.version


def test_a_champion_of_the_same_data_gives_way_through_the_gates_only(store: Store):
    before = store.state()
    assert not crown_winner(store.tracker, store.others[0].run_id, store.exports, Gates(), measure=bad).moved
    assert store.state() == before
    assert crown_winner(store.tracker, store.others[0].run_id, store.exports, Gates(), measure=good).moved


def test_without_a_champion_promote_still_asks_what_stands_alone(store: Store):
    store.tracker.set_alias(NAME, CHAMPION, None)
    done = store.promote(store.others[0], measure=bad)
    assert "calibration" in {gate.name for gate in done.refused_by}


# Two at once, and what breaks off


def test_two_promotions_at_once_are_one_after_the_other(store: Store):
    before = store.state()
    with open_journal(store.base), pytest.raises(RequestError, match="another promotion of reviews is under way"):
        store.promote(store.others[0], measure=never)
    assert store.state() == before


def test_a_champion_that_changes_while_it_is_measured_is_not_overwritten(store: Store):
    def meanwhile(*_) -> Figures:
        store.tracker.set_alias(NAME, CHAMPION, store.others[1].version)
        return GOOD

    with pytest.raises(RequestError, match="was changed meanwhile"):
        store.promote(store.others[0], measure=meanwhile)
    assert store.alias(CHAMPION) == store.others[1].version
    assert sorted(path.name for path in store.base.iterdir()) == ["1"]


@pytest.mark.parametrize("step", ["publish", "tag_version", PREVIOUS, CHAMPION])
def test_a_failure_at_any_step_is_undone(store: Store, step: str, monkeypatch: pytest.MonkeyPatch):
    aliases_before, _, folders_before = store.state()

    def fail(*_):
        raise TrackingError("the store is full")

    def fail_for_one(name: str, alias: str, version: str | None) -> None:
        if alias == step and version is not None:
            fail()
        Tracker.set_alias(store.tracker, name, alias, version)

    if step == "publish":
        monkeypatch.setattr(promotion, "publish", fail)
    elif step == "tag_version":
        monkeypatch.setattr(store.tracker, "tag_version", fail)
    else:
        monkeypatch.setattr(store.tracker, "set_alias", fail_for_one)
    with pytest.raises(TrackingError, match="the store is full"):
        store.promote(store.others[0])
    aliases, _, folders = store.state()
    assert (aliases, folders) == (aliases_before, folders_before)
    monkeypatch.undo()
    assert store.promote(store.others[0]).export == store.base / "2"


def killed_after(store: Store, step: str, folder: Path) -> RegisteredVersion:
    """Leave what a process leaves that is killed after a step of promoting over `previous`."""
    version, (_, other) = store.others[0], store.others
    store.tracker.set_alias(NAME, PREVIOUS, other.version)
    with open_journal(store.base) as journal:
        journal.write(Intent(version=version.version, export="2", previous=other.version))
    (store.base / ".promoting-abc").mkdir()
    if step in ("publish", PREVIOUS, CHAMPION):
        publish(store.tracker.download_saved_model(NAME, version.version, folder), store.base)
    if step in (PREVIOUS, CHAMPION):
        store.tracker.set_alias(NAME, PREVIOUS, store.champion.version)
    if step == CHAMPION:
        store.tracker.set_alias(NAME, CHAMPION, version.version)
    return version


@pytest.mark.parametrize("step", ["journal", "publish", PREVIOUS])
def test_what_a_killed_process_began_is_undone_by_the_next(store: Store, step: str, tmp_path: Path):
    killed_after(store, step, tmp_path)
    assert not store.promote(store.others[1], measure=bad).moved
    assert (store.alias(CHAMPION), store.alias(PREVIOUS)) == (store.champion.version, store.others[1].version)
    assert sorted(path.name for path in store.base.iterdir()) == ["1"]


def test_what_a_killed_process_had_done_stays(store: Store, tmp_path: Path):
    version = killed_after(store, CHAMPION, tmp_path / "logged")
    assert not store.promote(store.others[1], measure=bad).moved
    assert (store.alias(CHAMPION), store.alias(PREVIOUS)) == (version.version, store.champion.version)
    assert store.is_served(version, tmp_path / "served")
    assert sorted(path.name for path in store.base.iterdir()) == ["1", "2"]


def test_while_the_store_is_silent_the_old_champion_is_served(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    version = store.others[0]

    def fail(*_):
        raise TrackingError("no answer")

    def move_and_fall_silent(name: str, alias: str, number: str | None) -> None:
        Tracker.set_alias(store.tracker, name, alias, number)
        if alias == CHAMPION:  # it moved, but nobody hears of it
            monkeypatch.setattr(store.tracker, "aliased_version", fail)
            fail()

    monkeypatch.setattr(store.tracker, "set_alias", move_and_fall_silent)
    with pytest.raises(TrackingError, match="no answer"):
        store.promote(version)
    assert store.is_served(store.champion, tmp_path / "during")
    monkeypatch.undo()
    # The alias did move: the next promotion, even one that comes to nothing, serves what is champion.
    assert not store.promote(store.others[1], measure=bad).moved
    assert store.alias(CHAMPION) == version.version
    assert store.is_served(version, tmp_path / "after")


# The command line, everything measured for real


def valence(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_the_command_shows_every_gate_s_figure_and_says_no(store: Store, experiment, tmp_path: Path, capsys):
    gates = tmp_path / "gates.toml"
    gates.write_text(  # on so few texts only latency, which nothing can pass, is certain
        "accuracy.margin = 1.0\ncalibration.max_expected_calibration_error = 1.0\nlatency.max_milliseconds = 0.001\n"
    )
    before, challenger = store.state(), store.others[0]
    code = valence("promote", challenger.run_id, "--gates", gates, "--artifacts", store.artifacts, "--json")
    printed = capsys.readouterr()
    assert code == 1
    assert "refused by latency; nothing has changed" in printed.err
    assert store.state() == before
    told = json.loads(printed.out)
    assert (told["run_id"], told["passed"], told["moved"]) == (challenger.run_id, False, False)
    results = {gate["name"]: gate for gate in told["gates"]}
    assert list(results) == list(GATES)
    both = [experiment.run(one.model).answers(one.model)["test"] for one in (challenger, store.champion)]
    assert results["accuracy"]["figure"] == wording.points(accuracy_difference(*both))
    error = experiment.run(challenger.model).evaluation.metrics["expected_calibration_error"].value
    assert results["calibration"]["figure"] == f"{error:.3f}"
    assert results["parity"]["passed"]
    assert results["parity"]["figure"].startswith(f"{len(both[0])} answers, ")
    assert " times " in results["latency"]["figure"]


def test_the_command_goes_back(store: Store, tmp_path: Path, capsys):
    store.promote(store.others[0])
    assert valence("promote", "--rollback", "--artifacts", store.artifacts) == 0
    printed = capsys.readouterr().out
    assert f"champion: {store.champion}, instead of version {store.others[0].version}" in printed
    assert "python serve.py" in printed
    assert store.alias(CHAMPION) == store.champion.version
    assert store.is_served(store.champion, tmp_path)
