"""A model trained with several seeds: one run with a child a seed, one contender, one export."""

from __future__ import annotations

import statistics
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Silent, small_config
from mlflow.store.tracking import sqlalchemy_store

import app.experiment
from app.answer_files import read_answers
from app.config import RunConfig
from app.errors import RequestError
from app.experiment import run_experiment
from app.metrics import METRICS
from app.past_runs import PARENT
from app.seed_notes import seed_note, seed_spread
from app.statistics import Interval
from app.tracking import DESCRIPTION, Tracker
from models import DEFAULT_MODELS


@pytest.fixture(scope="module")
def trained(reviews, tmp_path_factory):
    """`linear` with the seeds 4, 5 and 6, of which 5 comes to nothing: (outcome, reporter, tracker)."""
    artifacts, reporter = tmp_path_factory.mktemp("seeds"), Silent()
    train = app.experiment.train

    def train_but_for_one(config: RunConfig, *rest: object) -> object:
        if config.seed == 5:
            raise FloatingPointError("the loss became nan")
        return train(config, *rest)  # type: ignore[arg-type]

    config = small_config("linear", reviews, "model.epochs=1", "seed=4", "seeds=3", "data.slice_columns=['stars']")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.experiment, "train", train_but_for_one)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        outcome = run_experiment([config], artifacts, reporter)
        return outcome, reporter, Tracker(artifacts)


def test_every_seed_is_told_of_by_its_name(trained):
    _, reporter, _ = trained
    fitted = ["fitted linear seed 4", "failed linear seed 5", "fitted linear seed 6"]
    assert reporter.told == ["prepared", *fitted, "compared", "exported"]
    assert list(reporter.validation_losses) == ["linear seed 4", "linear seed 6"]


def test_a_seed_that_fails_leaves_the_others(trained):
    outcome, _, tracker = trained
    assert outcome.failures == {"linear seed 5": "the loss became nan"}
    (candidate,) = outcome.candidates
    assert [seed.run.config.seed for seed in candidate.seeds] == [4, 6]
    (failed,) = tracker.client.search_runs(["1"], "attributes.status = 'FAILED'")
    assert failed.info.run_name == "linear seed 5"
    assert failed.data.tags["error"] == "FloatingPointError: the loss became nan"


def test_seeds_are_child_runs_of_their_model_s_run(trained):
    outcome, _, tracker = trained
    (parent,) = tracker.find_runs(experiment="reviews")
    assert (parent.id, parent.name, parent.params["seeds"]) == (outcome.best.run_id, "linear", "3")
    assert "seed" not in parent.params
    children = tracker.seeds_of(parent)
    assert [(child.name, child.params["seed"], child.params["seeds"]) for child in children] == [
        (f"linear seed {seed}", str(seed), "1") for seed in (4, 6)
    ]
    assert {child.tags[PARENT] for child in children} == {parent.id}
    shared = parent.params.keys() - {"seeds", "pyfunc.output"}
    assert all(child.params[name] == parent.params[name] for child in children for name in shared)


def test_the_parent_shows_mean_spread_and_interval_of_every_metric(trained):
    outcome, _, tracker = trained
    (parent,) = tracker.find_runs(experiment="reviews")
    children = tracker.seeds_of(parent)
    for name in METRICS:
        values = [child.metrics[f"test/{name}"] for child in children]
        shown = parent.metrics
        assert shown[f"test/{name}"] == pytest.approx(statistics.mean(values))
        assert shown[f"test_seeds/{name}_std"] == pytest.approx(statistics.stdev(values))
        assert (shown[f"test_seeds/{name}_min"], shown[f"test_seeds/{name}_max"]) == (min(values), max(values))
        interval = outcome.best.evaluation.metrics[name]
        assert [shown[f"test_interval/{name}_{end}"] for end in ("low", "high")] == [interval.low, interval.high]
    losses = [child.metrics["best_validation_log_loss"] for child in children]
    assert parent.metrics["best_validation_log_loss"] == pytest.approx(statistics.mean(losses))


def test_all_runs_of_the_command_carry_the_verdict_the_parent_the_spread_too(trained):
    outcome, _, tracker = trained
    (parent,) = tracker.find_runs(experiment="reviews")
    (sentence,) = outcome.comparison.sentences
    for run in (parent, *tracker.seeds_of(parent)):
        assert run.tags[DESCRIPTION].startswith(sentence)
        assert "- reviews: 240 texts of 60 films" in run.tags[DESCRIPTION]
    assert outcome.best.note in parent.tags[DESCRIPTION]
    assert outcome.best.note.endswith(" Failed: linear seed 5.")
    assert outcome.best.note.startswith("linear over 2 seeds: test accuracy 1.000 on average, from 1.000 to 1.000")


def test_the_seed_with_the_lowest_validation_loss_is_exported_and_its_answers_are_the_parent_s(trained):
    outcome, _, tracker = trained
    (parent,) = tracker.find_runs(experiment="reviews")
    best = min(outcome.best.seeds, key=lambda seed: seed.run.validation_log_loss)
    assert parent.tags["exported_seed"] == str(best.run.config.seed)
    assert outcome.best.run is best.run
    (registered,) = tracker.client.search_model_versions("name = 'reviews'")
    assert registered.run_id == parent.id
    assert registered.tags["validation_log_loss"] == repr(best.run.validation_log_loss)
    of_parent = read_answers(tracker.fetch(parent.id, "answers"))["test"]
    of_seed = read_answers(tracker.fetch(best.run_id, "answers"))["test"]
    np.testing.assert_array_equal(of_parent.logits, of_seed.logits)
    assert (of_parent.name, of_seed.name) == ("linear", f"linear seed {best.run.config.seed}")


def test_slice_columns_come_with_the_answers_beside_the_group(trained):
    outcome, _, tracker = trained
    for part in read_answers(tracker.fetch(outcome.best.run_id, "answers")).values():
        assert list(part.columns) == ["film", "stars"]
        assert [part.label_names[label_id] for label_id in part.label_ids] == list(part.columns["stars"])


def test_a_start_that_several_runs_share_is_refused_with_their_ids(trained, monkeypatch):
    _, _, tracker = trained
    ids = iter(["c0ffee" + end * 26 for end in "ab"])
    monkeypatch.setattr(sqlalchemy_store.uuid, "uuid4", lambda: SimpleNamespace(hex=next(ids)))
    for name in ("one", "two"):
        with tracker.run("many", name):
            pass
    with pytest.raises(RequestError, match=r"c0ffee is the start of 2 runs: c0ffee.* \(.*\), c0ffee.* Give more of"):
        tracker.find_runs("c0ffee")
    (run,) = tracker.find_runs("c0ffeeb")
    assert run.name == "two"


def test_all_seeds_are_one_contender(trained):
    outcome, _, _ = trained
    (row,) = outcome.comparison.rows
    assert (row.name, row.num_seeds) == ("linear", 2)
    assert row.training_seconds == pytest.approx(
        statistics.mean(seed.run.history.seconds for seed in outcome.best.seeds)
    )
    content = outcome.to_dict()["runs"][0]
    assert [seed["seed"] for seed in content["seeds"]] == [4, 6]
    assert content["evaluation"] == outcome.best.evaluation.to_dict()


def test_a_model_is_chosen_by_the_mean_of_its_seeds(experiment):
    (first, *_) = experiment.outcome.candidates

    def candidate(*losses: float):
        seeds = [replace(first.seeds[0], run=replace(first.run, validation_log_loss=loss)) for loss in losses]
        return replace(first, seeds=tuple(seeds))

    lucky, steady = candidate(0.1, 0.9), candidate(0.4, 0.3)
    assert (lucky.validation_log_loss, steady.validation_log_loss) == (0.5, pytest.approx(0.35))
    assert app.experiment.choose_best([lucky, steady]) is steady
    assert steady.run.validation_log_loss == 0.3


@pytest.mark.parametrize("name", list(DEFAULT_MODELS))
def test_a_single_seed_has_no_child_and_no_note(experiment, name):
    tracker = Tracker(experiment.artifacts)
    (run,) = tracker.find_runs(name, experiment="reviews")
    assert tracker.seeds_of(run) == (run,)
    (candidate,) = (one for one in experiment.outcome.candidates if one.run.name == name)
    assert candidate.note is None


def test_seeds_are_said_one_after_the_other(reviews):
    config = small_config("linear", reviews, "seed=4", "seeds=3")
    assert [(one.seed, one.seeds) for one in config.by_seed()] == [(4, 1), (5, 1), (6, 1)]
    assert {one.model_copy(update={"seed": 4, "seeds": 3}) for one in config.by_seed()} == {config}


def test_a_note_says_the_spread_and_names_a_lucky_seed(experiment):
    evaluation = experiment.run("linear").evaluation
    accuracies = [0.740, 0.742, 0.738, 0.741, 0.790]
    metrics = [{**evaluation.metrics, "accuracy": Interval(one, one, one)} for one in accuracies]
    note = seed_note("lstm", range(5), [replace(evaluation, metrics=of_seed) for of_seed in metrics])
    assert note.startswith("lstm over 5 seeds: test accuracy 0.750 on average, from 0.738 to 0.790, ")
    assert "Lucky seed: seed 4 has 0.790" in note


def test_a_single_seed_that_is_left_has_no_deviation():
    found = seed_spread([0.7])
    assert (found.mean, found.low, found.high) == (0.7, 0.7, 0.7)
    assert np.isnan(found.deviation)
