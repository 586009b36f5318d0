"""A whole experiment in a real SQLite store: what is tracked, what is exported, what a failure leaves."""

from __future__ import annotations

import ast
import json
import math
import shutil
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import Silent, small_config

from app import tracking
from app.errors import RequestError
from app.experiment import run_experiment
from app.serving.predictor import Predictor
from app.tracking import SERVING_REQUIREMENTS, Tracker, copy_serving_code
from app.training import prepare, train
from models import DEFAULT_MODELS


@pytest.fixture(scope="module")
def client(experiment):
    return Tracker(experiment.artifacts).client


@pytest.fixture(scope="module")
def runs(experiment, client):
    """The MLflow runs by the name of their model."""
    (found,) = (one for one in client.search_experiments() if one.name == "reviews")
    return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


def artifacts(client, run) -> set[str]:
    def below(path: str) -> set[str]:
        files = client.list_artifacts(run.info.run_id, path)
        return set().union(*(below(file.path) if file.is_dir else {file.path} for file in files))

    return below("")


def test_the_reporter_hears_of_every_step_in_order(experiment):
    models = [f"fitted {name}" for name in DEFAULT_MODELS]
    assert experiment.reporter.told == ["prepared", *models, "compared", "exported"]


def test_each_model_is_one_finished_run(runs):
    assert set(runs) == set(DEFAULT_MODELS)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_a_run_keeps_its_resolved_configuration(experiment, client, runs):
    config = experiment.run("lstm").config
    logged = runs["lstm"].data.params
    assert logged["model.hidden_dim"] == "8"
    assert logged["seed"] == "0"
    settings = {name: str(value) for name, value in config.flat().items() if value is not None}
    assert logged == {**settings, "pyfunc.output": "table"}  # what MLflow adds of the model
    assert client.download_artifacts(runs["lstm"].info.run_id, "config.toml").endswith("config.toml")


def test_a_run_keeps_a_metric_for_every_epoch(experiment, client, runs):
    logged = client.get_metric_history(runs["lstm"].info.run_id, "epoch/validation_log_loss")
    assert [metric.step for metric in logged] == [1, 2]
    assert [metric.value for metric in logged] == experiment.reporter.validation_losses["lstm"]


def test_a_run_keeps_what_was_measured_on_test_with_its_intervals(experiment, runs):
    evaluation, logged = experiment.run("linear").evaluation, runs["linear"].data.metrics
    for name, interval in evaluation.metrics.items():
        assert logged[f"test/{name}"] == interval.value
        assert logged[f"test_interval/{name}_low"] == interval.low
        assert logged[f"test_interval/{name}_high"] == interval.high


def test_a_run_names_each_split_as_an_input(experiment, runs):
    inputs = runs["linear"].inputs.dataset_inputs
    contexts = {tag.value for one in inputs for tag in one.tags if tag.key == "mlflow.data.context"}
    assert contexts == {"train", "validation", "test"}
    fingerprint = experiment.outcome.material.fingerprints["split"]
    assert {json.loads(one.dataset.source)["tags"]["fingerprint"] for one in inputs} == {fingerprint}
    assert {name: json.loads(one.dataset.profile)["num_rows"] for one in inputs for name in [context(one)]} == {
        name: len(split) for name, split in experiment.outcome.material.splits.items()
    }


def context(dataset_input) -> str:
    (value,) = (tag.value for tag in dataset_input.tags if tag.key == "mlflow.data.context")
    return value


def test_runs_on_the_same_material_have_the_same_fingerprints(experiment, runs):
    for name, fingerprint in experiment.outcome.material.fingerprints.items():
        assert {run.data.tags[f"fingerprint.{name}"] for run in runs.values()} == {fingerprint}


def test_a_run_says_on_which_versions_it_was_made(runs):
    import tensorflow as tf

    assert runs["lstm"].data.tags["version.tensorflow"] == tf.__version__


def test_a_run_keeps_files_and_figures(client, runs):
    kept = artifacts(client, runs["transformer"])
    assert kept >= {
        "config.toml",
        "vocab.txt",
        "data_card.json",
        "data_card.txt",
        "evaluation.json",
        "comparison.json",
        "answers/answers.parquet",
        "answers/answers.json",
        *(f"figures/{name}.png" for name in ("confusion_matrix", "reliability", "roc", "precision_recall", "training")),
    }


def test_the_kept_vocabulary_is_the_one_that_was_used(experiment, client, runs, tmp_path):
    from data.vocabulary import Vocabulary

    path = client.download_artifacts(runs["lstm"].info.run_id, "vocab.txt", str(tmp_path))
    assert Vocabulary.load(Path(path)) == experiment.outcome.material.vocabulary


def test_every_model_is_registered_and_the_winner_is_champion(experiment, client):
    versions = client.search_model_versions("name = 'reviews'")
    assert {version.tags["model"] for version in versions} == set(DEFAULT_MODELS)
    champion = client.get_model_version_by_alias("reviews", "champion")
    best = min(experiment.outcome.candidates, key=lambda one: one.run.validation_log_loss)
    assert champion.tags["model"] == best.run.name == experiment.outcome.best.run.name
    assert champion.tags["export"] == str(experiment.outcome.export)


def test_the_logged_model_answers_as_the_export(experiment):
    mlflow.set_tracking_uri(Tracker(experiment.artifacts).uri)
    model = mlflow.pyfunc.load_model("models:/reviews@champion")
    texts = ["The film is great", "dull and awful", ""]
    answer = model.predict(pd.DataFrame({"text": texts}, dtype=object))
    expected = Predictor(experiment.outcome.export).predict(texts)
    assert answer["label"].tolist() == expected.labels
    np.testing.assert_array_equal(np.array(answer["probabilities"].tolist(), "float32"), expected.probabilities)


@pytest.mark.filterwarnings("ignore")  # MLflow's evaluator warns of its own use of pandas and scikit-learn
def test_mlflow_s_own_evaluation_of_the_logged_model_gives_our_figures(experiment):
    test, label_names = experiment.outcome.material.splits.test, experiment.outcome.material.splits.label_names
    labels = [label_names[label_id] for label_id in test.label_ids]
    frame = pd.DataFrame({"text": list(test.texts), "label": labels}, dtype=object)
    with Tracker(experiment.artifacts).run("evaluations", "champion"):
        found = mlflow.models.evaluate(
            "models:/reviews@champion",
            frame,
            targets="label",
            model_type="classifier",
            model_config={"pyfunc.output": "label"},
            evaluator_config={"log_explainer": False},
        )
    ours = experiment.outcome.best.evaluation.metrics
    assert found.metrics["accuracy_score"] == pytest.approx(ours["accuracy"].value)
    assert found.metrics["f1_score"] == pytest.approx(ours["macro_f1"].value)


def test_the_logged_code_imports_nothing_that_its_requirements_do_not_name(tmp_path):
    provided = {
        "tensorflow_serving": "tensorflow-serving-api",
        "google": "protobuf",
    }
    found = imported_from("app.serving.pyfunc", copy_serving_code(tmp_path).parent)
    assert {"tensorflow", "pandas"} <= found.keys()
    # Its libraries of operations are loaded, its Python is not imported.
    assert "tensorflow-text" in SERVING_REQUIREMENTS
    for module, files in found.items():
        assert module in sys.stdlib_module_names or provided.get(module, module) in SERVING_REQUIREMENTS, files


def imported_from(start: str, root: Path) -> dict[str, set[str]]:
    """What `start` and the modules of ours behind it import from elsewhere, with the files that do."""
    found: dict[str, set[str]] = {}
    seen, ahead = set(), [start]
    while ahead:
        module = ahead.pop()
        file = root / f"{module.replace('.', '/')}.py"
        if module in seen or not file.is_file():  # a name imported from a module is no module
            continue
        seen.add(module)
        for name in imported(file):
            if name.split(".")[0] == "app":
                ahead.append(name)
            else:
                found.setdefault(name.split(".")[0], set()).add(file.name)
    return found


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_comparison_is_of_the_same_test_examples_and_names_every_model(experiment):
    comparison = experiment.outcome.comparison
    assert {row.name for row in comparison.rows} == set(DEFAULT_MODELS)
    assert len(comparison.pairs) == 3
    assert comparison.sentences


def test_the_outcome_is_json(experiment):
    content = json.loads(json.dumps(experiment.outcome.to_dict(), allow_nan=False))
    assert content["best"] == experiment.outcome.best.run.name
    assert [run["model"] for run in content["runs"]] == list(DEFAULT_MODELS)
    assert content["data"]["counts"]["rows_read"] == 240


def test_no_half_written_folder_is_left(experiment):
    assert [path.name for path in (experiment.artifacts / "exports" / "reviews").iterdir()] == ["1"]
    assert list((experiment.artifacts / "cache").iterdir()) == []


@pytest.mark.slow
def test_training_alone_is_training_beside_others(experiment, reviews, tmp_path):
    config = small_config("transformer", reviews)
    alone = train(config, prepare(config, tmp_path, Silent()), lambda report: None)
    np.testing.assert_allclose(alone.test_probabilities, experiment.run("transformer").test_probabilities, atol=1e-5)


def test_a_model_that_diverges_does_not_take_the_others_with_it(reviews, tmp_path):
    reporter = Silent()
    configs = [small_config("linear", reviews), small_config("lstm", reviews, "model.learning_rate=1e30")]
    outcome = run_experiment(configs, tmp_path, reporter)
    assert [one.run.name for one in outcome.candidates] == ["linear"]
    assert "lower model.learning_rate" in outcome.failures["lstm"]
    assert "failed lstm" in reporter.told
    assert (outcome.export / "saved_model.pb").is_file()
    client = Tracker(tmp_path).client
    (failed,) = client.search_runs([client.get_experiment_by_name("reviews").experiment_id], "status = 'FAILED'")
    assert failed.info.run_name == "lstm"
    assert failed.data.tags["error"].startswith("FloatingPointError")


@pytest.mark.slow
def test_a_worse_model_does_not_take_the_champion_s_place(experiment, reviews, tmp_path):
    shutil.copytree(experiment.artifacts / "exports", tmp_path / "exports")
    shutil.copy(experiment.artifacts / "mlflow.db", tmp_path / "mlflow.db")  # the run stays out of what others look at
    worse = small_config("lstm", reviews, "model.epochs=1", "model.learning_rate=1e-6", "model.wide=false")
    outcome = run_experiment([worse], tmp_path, Silent())
    assert not outcome.promotion.moved
    assert outcome.export is None
    assert "accuracy" in [gate.name for gate in outcome.promotion.refused_by]
    assert outcome.promotion.champion.run_id == experiment.outcome.best.run_id
    champion = Tracker(tmp_path).aliased_version("reviews", "champion")
    assert champion.run_id == experiment.outcome.best.run_id


def test_a_store_that_cannot_be_used_is_refused_before_any_work(monkeypatch, reviews, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuchscheme://somewhere")
    reporter = Silent()
    with pytest.raises(RequestError, match="nosuchscheme"):
        run_experiment([small_config("linear", reviews)], tmp_path, reporter)
    assert reporter.told == []


def test_a_deleted_experiment_is_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(tmp_path)
    with tracker.run("reviews", "first"):
        pass
    experiment_id = tracker.client.get_experiment_by_name("reviews").experiment_id
    tracker.client.delete_experiment(experiment_id)
    with tracker.run("reviews", "second") as run:
        run.log_metrics({"kept": 1.0, "undefined": float("nan")})
    assert tracker.client.get_run(run.id).data.metrics == {"kept": 1.0}
    assert tracker.client.get_run(run.id).info.experiment_id == experiment_id


def test_metrics_are_added_to_a_run_that_has_ended(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(tmp_path)
    with tracker.run("reviews", "first") as run:
        run.log_metrics({"before": 1.0})
    values = {"comparison/p_against_lstm 1f00c0de": 0.25, "undefined": math.nan, "far": math.inf, "deep": -math.inf}
    tracker.attach_metrics(run.id, values)
    kept = tracker.client.get_run(run.id)
    assert kept.data.metrics == {"before": 1.0, "comparison/p_against_lstm 1f00c0de": 0.25}
    assert kept.info.status == "FINISHED"


def test_the_default_store_is_below_the_artifacts_and_the_environment_wins(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri(tmp_path) == f"sqlite:///{tmp_path.resolve() / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.tracking_uri(tmp_path) == "http://127.0.0.1:5000"
