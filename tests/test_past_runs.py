"""Runs of earlier commands: found by what people call them, with an error that names what is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.answer_files import read_answer_files
from app.errors import RequestError
from app.fairness import Lock, make_lock
from app.run_records import ANSWERS
from app.tracking import Tracker
from models import DEFAULT_MODELS


@pytest.fixture(scope="module")
def tracker(experiment):
    return Tracker(experiment.artifacts)


def refused(tracker: Tracker, *references: str, experiment: str | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        tracker.find_runs(*references, experiment=experiment)
    return str(caught.value)


def test_a_run_is_found_by_its_id_and_by_the_start_of_it(experiment, tracker):
    candidate = experiment.outcome.best
    (run,) = tracker.find_runs(candidate.run_id)
    assert (run.id, run.name, run.model, run.experiment) == (candidate.run_id, *[candidate.run.name] * 2, "reviews")
    assert run.params["model_name"] == candidate.run.name
    assert run.metrics["test/accuracy"] == candidate.evaluation.metrics["accuracy"].value
    assert {"answers", "config.toml", "figures", "vocab.txt"} <= set(run.artifacts)
    assert tracker.find_runs(candidate.run_id[:10]) == (run,)


def test_a_run_is_found_by_its_registered_model(experiment, tracker):
    champion = experiment.outcome.best
    (by_version,) = tracker.find_runs(f"reviews/{champion.registered_version}")
    assert by_version.id == champion.run_id
    registered = tracker.client.get_model_version_by_alias("reviews", "champion")
    (by_alias,) = tracker.find_runs("reviews@champion")
    assert by_alias.id == registered.run_id


def test_an_experiment_has_all_its_finished_runs_newest_first(experiment, tracker):
    of_first_command = {candidate.run_id: candidate.run.name for candidate in experiment.outcome.candidates}
    found = [run for run in tracker.find_runs(experiment="reviews") if run.id in of_first_command]
    assert [run.name for run in found] == list(DEFAULT_MODELS)[::-1]


def test_of_each_model_the_latest_is_found(experiment, tracker):
    every = tracker.find_runs(experiment="reviews")
    latest = tracker.find_runs(experiment="reviews", latest=True)
    assert {run.model for run in latest} == set(DEFAULT_MODELS)
    for run in latest:
        assert run == next(one for one in every if one.model == run.model)


def test_runs_come_in_the_order_in_which_they_are_named_each_once(experiment, tracker):
    found = tracker.find_runs("transformer", "linear", "transformer", experiment="reviews")
    assert [run.name for run in found] == ["transformer", "linear"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("0123456789abcdef0123456789abcdef", "has no run 0123456789abcdef0123456789abcdef. Experiments there: "),
        (
            "reviews@challenger",
            "the registered model reviews has no alias 'challenger'. Aliases there: champion (version",
        ),
        ("reviews/99", "the registered model reviews has no version 99. Versions there: 1, 2, 3"),
        ("films@champion", "has no registered model 'films'. Models there: reviews"),
        ("it's'/1", "has no registered model \"it's'\". Models there: reviews"),
        ("lstm", "'lstm' names no run: give an id of MLflow or its first 4 or more characters, name@alias or"),
    ],
)
def test_what_names_no_run_is_refused_with_what_is_there(tracker, reference, message):
    assert message in refused(tracker, reference)


def test_an_unknown_name_is_refused_with_the_runs_of_the_experiment(tracker):
    assert refused(tracker, "lstn", experiment="reviews").startswith(
        "the experiment 'reviews' has no finished run called"
    )
    assert "transformer" in refused(tracker, "lstn", experiment="reviews")
    assert "has no experiment 'films'. Experiments there: Default" in refused(tracker, experiment="films")
    assert refused(tracker) == "name runs, or an experiment"


def test_an_artifact_that_is_not_there_is_refused_with_those_that_are(experiment, tracker):
    run_id = experiment.outcome.best.run_id
    with pytest.raises(RequestError, match=rf"run {run_id} has no artifact anwers\. It has: answers, "):
        tracker.fetch(run_id, "anwers")


def test_an_artifact_is_fetched_as_a_file(experiment, tracker):
    card = tracker.fetch(experiment.outcome.best.run_id, "data_card.json")
    assert json.loads(Path(card).read_text(encoding="utf-8"))["name"] == "reviews"


@pytest.mark.parametrize("name", list(DEFAULT_MODELS))
def test_a_run_s_answers_are_those_of_the_trained_model(experiment, tracker, name):
    (run,) = (one for one in experiment.outcome.candidates if one.run.name == name)
    found = read_answer_files(tracker.fetch(run.run_id, ANSWERS))
    trained, splits = run.run, run.run.material.splits
    assert list(found.answers) == ["validation", "test"]
    test = found.answers["test"]
    assert (test.name, test.texts, test.label_names) == (name, splits.test.texts, splits.label_names)
    np.testing.assert_array_equal(test.probabilities, trained.test_probabilities)
    np.testing.assert_array_equal(found.answers["validation"].logits, trained.validation_logits)
    assert tuple(test.columns["film"]) == splits.test.groups
    np.testing.assert_array_equal(test.num_tokens + 1, trained.material.datasets.test.lengths)
    assert not test.truncated.any()


def test_a_run_s_tags_are_its_lock_and_runs_of_one_command_may_be_compared(experiment, tracker):
    runs = tracker.find_runs(*DEFAULT_MODELS, experiment="reviews")
    locks = [Lock.from_tags(run.tags) for run in runs]
    expected = make_lock(experiment.outcome.material.fingerprints, experiment.run("lstm").config)
    assert locks == [expected] * len(DEFAULT_MODELS)
    assert Lock(**read_answer_files(tracker.fetch(runs[0].id, ANSWERS)).fingerprints) == expected
