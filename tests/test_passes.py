"""How often the training split is passed over where nobody says it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from conftest import Silent, small_config

from app.tracking import Tracker
from app.training import prepare, settle, train
from models import MODELS
from models.config import Passes
from models.lstm import LSTMConfig


@pytest.mark.parametrize(("steps_per_pass", "passes"), [(1, 12), (50, 12), (76, 8), (160, 4), (200, 3), (5000, 3)])
def test_few_steps_are_passed_over_more_often_within_bounds(steps_per_pass: int, passes: int):
    assert Passes(steps=600, fewest=3, most=12).over(steps_per_pass) == passes


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_settles_and_one_that_is_settled_stays(name: str):
    config = MODELS[name].config()
    settled = config.settled(76)
    assert settled.epochs == config.PASSES.over(76)
    assert settled.settled(5000) == settled


@pytest.mark.parametrize(
    ("given", "passes", "of_ngrams"),
    [
        ({}, 8, 14),
        ({"epochs": 1}, 1, 2),  # a quick try of both parts
        ({"epochs": 20}, 20, 14),
        ({"epochs": 1, "wide_epochs": 5}, 1, 5),
    ],
)
def test_ngrams_beside_an_encoder_have_passes_of_their_own(given: dict[str, int], passes: int, of_ngrams: int):
    settled = LSTMConfig(**given).settled(76)
    assert (settled.epochs, settled.wide_epochs) == (passes, of_ngrams)
    assert settled.ngram_config().epochs == of_ngrams


def test_what_is_logged_has_the_number(experiment, reviews: Path):
    assert small_config("lstm", reviews).model.wide_epochs is None
    config, tracker = experiment.run("lstm").config, Tracker(experiment.artifacts)
    (run_id,) = (one.run_id for one in experiment.outcome.candidates if one.run.name == "lstm")
    written = tomllib.loads(tracker.fetch(run_id, "config.toml").read_text())
    assert written["model"]["wide_epochs"] == config.model.wide_epochs > 0
    assert tracker.client.get_run(run_id).data.params["model.wide_epochs"] == str(written["model"]["wide_epochs"])


@pytest.mark.slow
def test_a_run_keeps_the_number_and_gives_it_back_from_its_file(reviews: Path, tmp_path: Path):
    config = small_config("linear", reviews).model_copy(update={"model": MODELS["linear"].config(num_buckets=512)})
    material = prepare(config, tmp_path, Silent())
    run = train(config, material, lambda report: None)
    assert run.config == settle(config, material)
    assert f"epochs = {run.config.model.epochs}" in run.config.to_toml()
    assert run.config.flat()["model.epochs"] == run.config.model.epochs > 0
    assert len(run.history.loss) <= run.config.model.epochs
